"""Disks whose power fails, seen through their image, and full ones."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eaglenet_mm.search.errors import IndexWriteError
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_rows import make_file, make_index, make_moments

WRITER = """
import sys
from tests.search.index_rows import make_file, make_index, make_moments
with make_index(sys.argv[1]) as index:
    for number in range(10_000):
        index.add(make_file(number % 50, changed=number), make_moments(number))
        print(number + 1, flush=True)
"""


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    run('mount', '-o', 'loop', image, folder)
    try:
        yield folder
    finally:
        run('umount', folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty disk, and a folder to mount it at."""
    path = tmp_path / 'disk'
    with path.open('wb') as file:
        file.truncate(48 * 2**20)
    (tmp_path / 'mounted').mkdir()
    try:
        run('mkfs.ext4', '-q', path)
        with mounted(path, tmp_path / 'mounted'):
            pass
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f'a disk can be mounted by its owner alone: {err}')
    return path


@pytest.mark.nightly
@pytest.mark.parametrize('seed', range(5))
def test_what_was_committed_is_there(
    image: Path, tmp_path: Path, repository: Path, seed: int
) -> None:
    """The image holds what was asked to be on the disk, and no more."""
    folder, copy = tmp_path / 'mounted', tmp_path / 'copy'
    wanted = random.Random(seed).randint(1, 120)
    with mounted(image, folder):
        writer = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(folder / 'a.index')],
            cwd=repository,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) >= wanted:
                    break
            time.sleep(random.Random(seed).random() / 100)
            writer.send_signal(signal.SIGSTOP)
            shutil.copy(image, copy)
        finally:
            writer.kill()
            writer.wait()
    with mounted(copy, folder):
        index = VideoIndex.load(folder / 'a.index')
        assert index.store.verify() == {}
        # the last of a file may have been on its way
        latest = max(file.changed for file in index.files.values())
        assert latest >= wanted - 1
        assert len(index) == len(index.files) == min(50, latest + 1)
        index.close()


def fill(index: VideoIndex) -> int:
    """Add files until there is no more room; tell how many are there."""
    for number in range(1000):
        moments = make_moments(number)
        moments.thumbnails = [bytes(50_000)]
        try:
            index.add(make_file(number), moments)
        except IndexWriteError as err:
            if 'Make room' not in str(err):
                raise
            return number
    raise AssertionError('the disk has no end')


@pytest.mark.nightly
def test_a_full_disk(tmp_path: Path) -> None:
    """What was committed stays, and with more room the index goes on."""
    folder = tmp_path / 'small'
    folder.mkdir()
    try:
        run('mount', '-t', 'tmpfs', '-o', 'size=2m', 'small', folder)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f'a disk can be mounted by its owner alone: {err}')
    try:
        index = make_index(folder / 'a.index')
        added = fill(index)
        assert added > 5
        for opened in (index, VideoIndex.load(folder / 'a.index')):
            assert len(opened) == len(opened.files) == added
            assert opened.store.verify() == {}
        run('mount', '-o', 'remount,size=8m', folder)
        index.add(make_file(added), make_moments(added))
        assert len(index) == added + 1
        assert index.store.verify() == {}
        opened.close()
        index.close()
    finally:
        run('umount', folder)
