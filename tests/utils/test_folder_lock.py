"""One writer of a folder at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock


def _hold(path: Path, connection: Connection) -> None:
    lock = take_lock(path)
    connection.send(os.getpid())
    time.sleep(60)
    lock.close()


def test_another_process_is_named(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    outer, inner = context.Pipe()
    path = tmp_path / 'new' / 'lock'
    holder = context.Process(target=_hold, args=(path, inner))
    holder.start()
    number = outer.recv()
    try:
        with pytest.raises(FolderInUseError) as caught:
            take_lock(path)
        assert caught.value.writer == f'Another process ({number})'
    finally:
        holder.kill()
        holder.join()
    take_lock(path).close()  # a lock ends with its process


def test_this_process_is_named(tmp_path: Path) -> None:
    with (
        take_lock(tmp_path / 'lock'),
        pytest.raises(FolderInUseError, match='This process is writing'),
    ):
        take_lock(tmp_path / 'lock')
    take_lock(tmp_path / 'lock').close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='file'):
        take_lock(tmp_path / 'file' / 'lock')
