"""One writer of a folder at a time."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

_ATTEMPTS = 10
_SECONDS = 0.2  # more than one look: a writer may take its folder away


class FolderInUseError(RuntimeError):
    """A folder has a writer already; ``writer`` begins a sentence."""

    def __init__(self, writer: str) -> None:
        super().__init__(f'{writer} is writing there.')
        self.writer = writer


def take_lock(path: Path) -> ExitStack:
    """Become the writer of a folder, which is made if it is missing.

    ``path`` is the lock file in it, which holds the number of the process.
    Closing what is returned lets others write; a forked child does not keep
    the lock.

    Raises:
        FolderInUseError: If there is another writer, in whatever process.
        OSError: If the file cannot be made or locked.
    """
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(
            path,
            timeout=_SECONDS,
            thread_local=False,
            fallback_to_soft=False,  # such a lock outlives a killed writer
        )
        try:
            lock.acquire()
            path.write_text(f'{os.getpid()}\n', encoding='utf-8')
        except FileNotFoundError:
            continue
        except Timeout as err:
            raise FolderInUseError(_writer_of(path)) from err
        stack = ExitStack()
        stack.callback(lock.release)
        return stack
    raise FileNotFoundError(
        f'{path} cannot be locked: its folder vanishes again and again.'
    )


def _writer_of(path: Path) -> str:
    """Name the process that a lock file holds."""
    try:
        number = path.read_text(encoding='utf-8').strip()
    except OSError:  # Windows keeps others from reading it
        number = ''
    if number == str(os.getpid()):
        return 'This process'
    return f'Another process ({number or "unknown"})'
