"""One writer of a folder at a time."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import IO

_ATTEMPTS = 10
_LOCKS: weakref.WeakSet[IO[str]] = weakref.WeakSet()


class FolderInUseError(RuntimeError):
    """A folder has a writer already.

    Args:
        writer (str): Who it is, to begin a sentence with.
    """

    def __init__(self, writer: str) -> None:
        super().__init__(f'{writer} is writing there.')
        self.writer = writer


def _let_go() -> None:
    """Close the locks in a process that was forked.

    A lock ends with the last copy of its file: a worker that outlives a
    killed writer, if only for a moment, would keep it.
    """
    for lock in list(_LOCKS):
        lock.close()


os.register_at_fork(after_in_child=_let_go)


def take_lock(path: Path) -> IO[str]:
    """Become the writer of a folder, which is made if it is missing.

    Args:
        path (Path): The lock file in it. It holds the number of the process.

    Returns:
        IO[str]: The open file; closing it lets others write.

    Raises:
        FolderInUseError: If there is another writer, in whatever process.
        OSError: If the file cannot be made or locked.
    """
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                # without emptying it: the number in it is that of the writer
                handle = stack.enter_context(path.open('a+', encoding='utf-8'))
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(path.stat(), os.fstat(handle.fileno()))
            except FileNotFoundError:
                continue
            except BlockingIOError as err:
                handle.seek(0)
                raise FolderInUseError(_name(handle.read().strip())) from err
            if not mine:  # its writer has ended, and taken the folder away
                continue
            handle.seek(0)
            handle.truncate()
            handle.write(f'{os.getpid()}\n')
            handle.flush()
            stack.pop_all()
            _LOCKS.add(handle)
            return handle
    raise FileNotFoundError(
        f'{path} cannot be locked: its folder vanishes again and again.'
    )


def _name(number: str) -> str:
    if number == str(os.getpid()):
        return 'This process'
    return f'Another process ({number or "unknown"})'
