"""Locks that give a folder one writer at a time."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

_ATTEMPTS = 10
_SECONDS = 0.2  # long enough to notice that the folder was removed


class FolderInUseError(RuntimeError):
    """A folder has another writer; ``writer`` describes it."""

    def __init__(self, writer: str) -> None:
        super().__init__(f'{writer} is writing there.')
        self.writer = writer


def take_lock(path: Path) -> ExitStack:
    """Become the only writer of a folder, which is created if missing.

    ``path`` is the lock file in the folder, and holds the process id. Close
    the returned stack to release the lock; forked children do not hold it.

    Raises:
        FolderInUseError: If there is another writer, in any process.
        OSError: If the file cannot be created or locked.
    """
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(
            path,
            timeout=_SECONDS,
            thread_local=False,
            fallback_to_soft=False,  # a soft lock outlives a killed writer
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
        f'{path} cannot be locked: its folder keeps disappearing.'
    )


def _writer_of(path: Path) -> str:
    """Describe the process named in a lock file."""
    try:
        number = path.read_text(encoding='utf-8').strip()
    except OSError:  # unreadable for others on Windows
        number = ''
    if number == str(os.getpid()):
        return 'This process'
    return f'Another process ({number or "unknown"})'
