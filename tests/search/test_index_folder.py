"""Damage, other versions, two writers, full disks, sudden ends."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from eaglenet_mm.search import part_file, video_index
from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexInUseError,
    IndexWriteError,
)
from eaglenet_mm.search.index_manifest import NAME, IndexManifest
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_parts import MODEL, make_file, make_moments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / 'index'
    with VideoIndex.create(path, MODEL) as index:
        for number in range(3):
            index.add(make_file(number), make_moments(number, 2))
    return path


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob('part-*'))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_every_flipped_byte_is_noticed(folder: Path) -> None:
    """Wherever it lies, at loading or when its row is read."""
    path = parts(folder)[1]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place)
        with pytest.raises(
            DamagedIndexError, match=r'damaged|version|no part'
        ):
            VideoIndex.load(folder).verify()
        path.write_bytes(whole)
    VideoIndex.load(folder).verify()


def test_damage_is_told_by_the_name_of_the_video(folder: Path) -> None:
    path = parts(folder)[2]
    state = make_moments(2, 2).state['inner.values'][1]
    place = path.read_bytes().index(state.numpy().tobytes())
    flip(path, place + 3)
    index = VideoIndex.load(folder)
    ids = index.rows_of_file('/videos/2.mp4')
    with pytest.raises(DamagedIndexError, match=r'/videos/2\.mp4 are not'):
        index.read(ids)
    # the others can still be found
    index.read(index.rows_of_file('/videos/1.mp4'))


@pytest.mark.parametrize('keep', [0, 5, 100, -1])
def test_cut_short(folder: Path, keep: int) -> None:
    path = parts(folder)[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DamagedIndexError, match=r'part-000000000000.* damaged'
    ):
        VideoIndex.load(folder)


def test_a_part_is_missing(folder: Path) -> None:
    with VideoIndex.load(folder, writable=True) as index:
        index.compact()
    assert len(parts(folder)) == 1
    parts(folder)[0].unlink()
    with pytest.raises(DamagedIndexError, match=r'does not exist.*damaged'):
        VideoIndex.load(folder)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[:-10], 'is damaged: '),
        (lambda text: text.replace('float32', 'float16'), 'not what was'),
        (lambda text: '[]', 'no table of contents'),
        (lambda text: text.replace('"version": "1"', '"version": "9"'), '9 '),
    ],
)
def test_table_of_contents(
    folder: Path, change: Callable[[str], str], message: str
) -> None:
    path = folder / NAME
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedIndexError, match=message):
        VideoIndex.load(folder)


def test_a_part_of_another_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, 'VERSION', '2')
    with pytest.raises(
        DamagedIndexError, match=r'version 1 .* reads version 2'
    ):
        part_file.read_part(parts(folder)[0])


def test_names_of_parts_stay_in_the_folder(folder: Path) -> None:
    manifest = IndexManifest.read(folder)
    manifest.parts = ['../elsewhere.safetensors']
    manifest.write(folder)
    with pytest.raises(DamagedIndexError, match='which no index has'):
        VideoIndex.load(folder)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no such folder'):
        VideoIndex.load(tmp_path / 'gone')
    for writable in (False, True):
        with pytest.raises(FileNotFoundError, match='holds no index'):
            VideoIndex.load(tmp_path, writable=writable)
    assert not list(tmp_path.iterdir())


def test_other_files_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(IndexWriteError, match=r"holds \['thesis.tex'\]"):
        VideoIndex.create(tmp_path, MODEL)
    assert not (tmp_path / NAME).exists()


def test_an_index_is_not_made_twice(folder: Path) -> None:
    with pytest.raises(IndexWriteError, match='holds an index already'):
        VideoIndex.create(folder, MODEL)
    assert len(VideoIndex.load(folder)) == 6


def test_two_writers(folder: Path) -> None:
    with VideoIndex.load(folder, writable=True) as index:
        with pytest.raises(IndexInUseError, match='This process is writing'):
            VideoIndex.load(folder, writable=True)
        assert len(VideoIndex.load(folder)) == 6  # readers may
        index.add(make_file(9), make_moments(9))
    with VideoIndex.load(folder, writable=True) as index:
        assert len(index) == 7


def _wait(connection: Connection) -> None:
    connection.send('started')
    time.sleep(60)


def test_a_worker_does_not_keep_the_lock(folder: Path) -> None:
    """Readers of videos are forked, and may outlive a killed writer."""
    index = VideoIndex.load(folder, writable=True)
    context = multiprocessing.get_context('fork')
    outer, inner = context.Pipe()
    worker = context.Process(target=_wait, args=(inner,))
    worker.start()
    outer.recv()
    try:
        with pytest.raises(IndexInUseError):  # the child closed its copy only
            VideoIndex.load(folder, writable=True)
        index.close()
        VideoIndex.load(folder, writable=True).close()
    finally:
        worker.kill()
        worker.join()


def test_two_makers(tmp_path: Path) -> None:
    with (
        VideoIndex.create(tmp_path / 'i', MODEL),
        pytest.raises(IndexInUseError),
    ):
        VideoIndex.create(tmp_path / 'i', MODEL)


def test_a_reader_goes_on_while_parts_are_joined(folder: Path) -> None:
    reader = VideoIndex.load(folder)
    with VideoIndex.load(folder, writable=True) as index:
        index.compact()
    state, _ = reader.read(reader.row_ids)
    assert torch.equal(
        state['inner.values'][:2], make_moments(0, 2).state['inner.values']
    )


def test_no_free_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a video nor the table of contents is half there."""
    before = {path.name for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    index = VideoIndex.load(folder, writable=True)
    monkeypatch.setattr(part_file, 'save_file', full)
    with pytest.raises(IndexWriteError, match=r'No space left.*make room'):
        index.add(make_file(7), make_moments(7))
    with pytest.raises(IndexWriteError, match='No space left'):
        index.compact()
    assert len(index) == 6
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(IndexWriteError, match='The index is as it was'):
        index.remove(['/videos/1.mp4'])
    assert len(index) == 6
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir()} == before
    index.add(make_file(7), make_moments(7))
    index.close()
    VideoIndex.load(folder).verify()


def test_a_disk_that_fills_up(folder: Path) -> None:
    """The system itself refuses to write more."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.search.index_parts import make_file, make_moments
from eaglenet_mm.search.video_index import VideoIndex
index = VideoIndex.load({str(folder)!r}, writable=True)
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    index.add(make_file(8), make_moments(8, 20))
except OSError as err:
    print(type(err).__name__, err)
print(len(index))
"""
    found = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert found.stdout.startswith('IndexWriteError'), found
    assert found.stdout.endswith('\n6\n')
    assert not list(folder.glob('.*'))
    VideoIndex.load(folder).verify()


def _add_forever(folder: Path, connection: Connection) -> None:
    video_index._JOIN_EVERY = 4
    index = VideoIndex.load(folder, writable=True)
    for number in range(len(index.files), 100_000):
        index.add(make_file(number), make_moments(number))
        connection.send(number)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """What was finished is there, and the next writer goes on."""
    folder = tmp_path / 'index'
    VideoIndex.create(folder, MODEL).close()
    context = multiprocessing.get_context('fork')
    for attempt in range(20):
        outer, inner = context.Pipe()
        process = context.Process(target=_add_forever, args=(folder, inner))
        process.start()
        inner.close()
        # some parts are joined before the end comes, however slow it goes
        last = [outer.recv() for _ in range(4)][-1]
        time.sleep(0.0037 * attempt)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = outer.recv()
        index = VideoIndex.load(folder)
        index.verify()
        assert len(index) in (last + 1, last + 2)  # written, not yet told
        assert list(index.files) == [
            f'/videos/{number}.mp4' for number in range(len(index))
        ]
    assert len(index) > 60


def test_what_is_unfinished_is_removed(folder: Path) -> None:
    (folder / '.part-000000000009.safetensors.part').write_bytes(b'half')
    with VideoIndex.load(folder, writable=True):
        assert not list(folder.glob('.*'))
    content = json.loads((folder / NAME).read_text())
    assert content['version'] == '1'


def test_repair_goes_on_without_what_is_damaged(folder: Path) -> None:
    """A part that cannot be read, one that is gone, and one bad row."""
    with VideoIndex.load(folder, writable=True) as index:
        index.add(make_file(3), make_moments(3))
        index.compact()  # all of them are named by the table of contents
        index.add(make_file(4), make_moments(4, 2))
        index.add(make_file(5), make_moments(5, 2))
    first, second, third = parts(folder)
    flip(first, 20)
    content = make_moments(5, 2).state['inner.values'][1].numpy().tobytes()
    flip(third, third.read_bytes().index(content))
    with pytest.raises(DamagedIndexError, match='--repair'):
        VideoIndex.load(folder)
    with VideoIndex.load(folder, writable=True, repair=True) as index:
        assert list(index.files) == ['/videos/4.mp4']
        index.add(make_file(0), make_moments(0))
    assert second in parts(folder)
    assert (folder / f'damaged-{first.name}').is_file()
    again = VideoIndex.load(folder)
    again.verify()
    assert len(again) == 3


def test_damage_does_not_stop_the_adding(folder: Path) -> None:
    """Joining meets a bad row; what is new is safe all the same."""
    path = parts(folder)[1]
    content = make_moments(1, 2).state['inner.values'][0].numpy().tobytes()
    flip(path, path.read_bytes().index(content))
    with VideoIndex.load(folder, writable=True) as index:
        for number in range(10, 80):
            index.add(make_file(number), make_moments(number))
        with pytest.raises(DamagedIndexError, match=r'/videos/1\.mp4'):
            index.compact()
        index.tidy()
    assert len(VideoIndex.load(folder)) == 76


def test_space_is_given_back(folder: Path) -> None:
    with VideoIndex.load(folder, writable=True) as index:
        index.compact()
        before = sum(path.stat().st_size for path in parts(folder))
        index.remove(['/videos/0.mp4', '/videos/2.mp4'])
        index.compact()
        assert sum(path.stat().st_size for path in parts(folder)) < before
        state, _ = index.read(index.row_ids)
        expected = make_moments(1, 2).state['inner.values']
        assert torch.equal(state['inner.values'], expected)
        index.remove(['/videos/1.mp4'])
        index.compact()
        assert parts(folder) == []
    with VideoIndex.load(folder, writable=True) as index:
        assert index.add(make_file(0), make_moments(0)).tolist() == [6]


def test_others_may_read(folder: Path) -> None:
    (folder / 'ordinary').touch()
    expected = (folder / 'ordinary').stat().st_mode
    assert {path.stat().st_mode for path in parts(folder)} == {expected}


def test_files_of_others_stay(folder: Path) -> None:
    (folder / '.download.mp4.part').touch()
    VideoIndex.load(folder, writable=True).close()
    assert (folder / '.download.mp4.part').exists()


def test_a_copy_is_whole_or_absent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, calls, write = VideoIndex.load(folder), [], part_file.save_file

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(*arguments)

    monkeypatch.setattr(part_file, 'save_file', full)
    with pytest.raises(IndexWriteError, match='No space left'):
        index.save(tmp_path / 'copy')
    assert [path.name for path in tmp_path.iterdir()] == ['index']
    index.save(tmp_path / 'copy')
    assert len(VideoIndex.load(tmp_path / 'copy')) == len(index)


def _join_forever(folder: Path, connection: Connection) -> None:
    video_index._JOIN_EVERY = 3
    index = VideoIndex.load(folder, writable=True)
    connection.send('started')
    for number in range(100_000):
        index.add(make_file(number % 7), make_moments(number))


def test_reading_while_parts_are_joined(folder: Path) -> None:
    context = multiprocessing.get_context('fork')
    outer, inner = context.Pipe()
    writer = context.Process(target=_join_forever, args=(folder, inner))
    writer.start()
    outer.recv()
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert len(VideoIndex.load(folder).files) >= 3
    finally:
        writer.kill()
        writer.join()
