"""Frames from the cache are those of the video, or are decoded anew."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from eaglenet_mm.datasets import (
    CaptionExpansion,
    TextVideoDataset,
    VideoReadError,
)
from eaglenet_mm.datasets.frame_cache import (
    CacheEntry,
    FrameCacheWriter,
    frame_recipe,
)
from eaglenet_mm.datasets.frame_cache.layout import read_index
from eaglenet_mm.datasets.frame_cache_building import build_frame_cache
from eaglenet_mm.datasets.isolated_workers import Outcome
from eaglenet_mm.datasets.video_readers import PyAVReader


@pytest.fixture
def make_set(
    ann_file: str, clips: None, pipeline: list[dict[str, Any]]
) -> Callable[..., TextVideoDataset]:
    def make(cache: str | None = None, **options: Any) -> TextVideoDataset:
        return TextVideoDataset(
            'test.json',
            data_root=str(Path(ann_file).parent),
            pipeline=[dict(transform) for transform in pipeline],
            frame_cache=cache,
            **options,
        )

    return make


@pytest.fixture
def cached(make_set: Callable[..., TextVideoDataset], tmp_path: Path) -> Path:
    """The folder of a complete cache."""
    report = build_frame_cache(make_set(), tmp_path / 'cache', num_workers=1)
    assert report.num_written == 3
    assert report.failed == {}
    return report.folder


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.frame_cache.reader.print_log',
        lambda message, logger, level: messages.append(message),
    )
    return messages


@pytest.fixture
def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise VideoReadError('decoded although it is in the cache')

    monkeypatch.setattr(
        'eaglenet_mm.datasets.transforms.open_video.open_video', fail
    )


def assert_equal_items(one: Any, other: Any) -> None:
    assert one['inputs'].keys() == other['inputs'].keys()
    for key, value in one['inputs'].items():
        assert value.dtype == other['inputs'][key].dtype
        assert torch.equal(value, other['inputs'][key])
    samples = one['data_samples'], other['data_samples']
    assert samples[0].metainfo == samples[1].metainfo


def test_items_are_the_same(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    forbid_decoding: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = make_set('cache')
    items = [read[index] for index in range(3)]
    pairs = [CaptionExpansion(read)[index] for index in range(6)]
    monkeypatch.undo()
    decoded = make_set()
    for index, item in enumerate(items):
        assert_equal_items(item, decoded[index])
    for index, item in enumerate(pairs):
        assert_equal_items(item, CaptionExpansion(decoded)[index])
    # what a transform writes into frames must not reach the cache
    results = read.frame_cache.fill(read.get_data_info(0))
    assert results['fps'] == 10
    assert results['num_frames_reported'] == 30
    before = results['frames'].copy()
    results['frames'][:] = 0
    again = read.frame_cache.fill(read.get_data_info(0))['frames']
    np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize('context', ['fork', 'spawn'])
def test_in_workers(
    make_set: Callable[..., TextVideoDataset], cached: Path, context: str
) -> None:
    read, decoded = make_set('cache'), make_set()
    assert read[0] is not None  # the map is open in the parent
    loader = DataLoader(
        read,
        num_workers=2,
        collate_fn=pseudo_collate,
        multiprocessing_context=context,
    )
    for index, batch in enumerate(loader):
        expected = decoded[index]['inputs']['frames']
        assert torch.equal(batch['inputs']['frames'][0], expected)


def test_nothing_is_left_of_other_ways_to_sample(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    pipeline: list[dict[str, Any]],
) -> None:
    pipeline[1]['num_frames'] = 2
    with pytest.raises(FileNotFoundError) as caught:
        make_set('cache')
    message = str(caught.value)
    assert 'SampleFrames(num_frames=2, fps=1' in message
    assert 'there are caches of' in message
    assert 'SampleFrames(num_frames=4, fps=1' in message
    assert 'tools/cache_frames.py' in message
    with pytest.raises(FileNotFoundError, match='but there is no cache'):
        make_set('elsewhere')


def test_a_pipeline_that_cannot_be_cached(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    dataset = make_set()
    dataset.pipeline.transforms.insert(1, lambda results: results)
    with pytest.raises(ValueError, match='begins with OpenVideo, Sample'):
        build_frame_cache(dataset, tmp_path / 'cache')


def test_transforms_of_others_may_take_part(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    class Negative:
        cacheable = True

        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            results['frames'] = 255 - results['frames']
            return results

        def __repr__(self) -> str:
            return 'Negative()'

    dataset = make_set()
    dataset.pipeline.transforms.insert(4, Negative())
    assert frame_recipe(dataset.pipeline.transforms)[-1] == 'Negative()'
    dataset.pipeline.transforms.insert(4, lambda results: results)
    assert frame_recipe(dataset.pipeline.transforms)[-1] == (
        'ResizeCenterCrop(size=32)'
    )


def test_a_changed_video_is_decoded_anew(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    logged: list[str],
    tmp_path: Path,
) -> None:
    write_clip('a.mp4', num_frames=11)
    dataset = make_set('cache')
    for _ in range(2):
        frames = dataset[0]['inputs']['frames']
        assert frame_numbers(frames) == [0, 10]
    assert len(logged) == 1
    assert "Video 'a' (" in logged[0]
    assert 'has changed since' in logged[0]
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert (report.num_written, report.num_renewed) == (1, 1)
    assert report.num_kept == 2
    assert frame_numbers(make_set('cache')[0]['inputs']['frames']) == [0, 10]
    assert len(logged) == 1


def test_a_copy_of_a_video_is_known_by_its_content(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    forbid_decoding: None,
    logged: list[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / 'a.mp4'
    os.utime(path, (1, 1))
    assert make_set('cache')[0] is not None
    # another content of the same size
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match='decoded although'):
        make_set('cache')[0]
    assert len(logged) == 1


def test_the_data_may_move_and_videos_may_go(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    forbid_decoding: None,
    tmp_path: Path,
    pipeline: list[dict[str, Any]],
) -> None:
    target = tmp_path / 'elsewhere'
    shutil.copytree(tmp_path / 'cache', target / 'cache')
    shutil.copy(tmp_path / 'test.json', target)
    dataset = TextVideoDataset(
        'test.json',
        data_root=str(target),
        pipeline=pipeline,
        frame_cache='cache',
    )
    assert dataset[0]['inputs']['frames'].shape == (3, 3, 32, 32)


def flip(path: Path, place: int) -> None:
    with open(path, 'r+b') as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ 4]))


def test_damaged_frames_are_decoded_anew(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
    tmp_path: Path,
) -> None:
    flip(cached / '00000.frames', 5000)
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])
    assert len(logged) == 1
    assert 'the frames are damaged' in logged[0]
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert (report.num_renewed, report.num_kept) == (1, 2)
    assert_equal_items(make_set('cache')[0], decoded[0])
    assert len(logged) == 1


@pytest.mark.parametrize('loss', ['half', 'all', 'file'])
def test_lost_frames_are_decoded_anew(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
    loss: str,
) -> None:
    path = cached / '00000.frames'
    if loss == 'file':
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if loss == 'half' else 0)
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])
    assert 'lines are damaged or cut off' in logged[0]


def test_a_file_cut_while_it_is_read(
    make_set: Callable[..., TextVideoDataset], cached: Path, logged: list[str]
) -> None:
    dataset = make_set('cache')
    (cached / '00000.frames').unlink()
    assert_equal_items(dataset[0], make_set()[0])
    assert 'the frames are damaged' in logged[0]


@pytest.mark.parametrize('damage', ['flip', 'text', 'half', 'version'])
def test_damaged_lines_count_for_nothing(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
    tmp_path: Path,
    damage: str,
) -> None:
    path = cached / 'index.txt'
    first, *others = path.read_bytes().splitlines(keepends=True)
    entry = CacheEntry.from_line(first)
    if damage == 'flip':
        first = first.replace(b'"offset": 0', b'"offset": 1')
    elif damage == 'text':
        first = b'what is this\n'
    elif damage == 'half':
        others, first = [first, *others[:-1]], others[-1][:-9]
    else:
        first = entry.to_line().replace(b'digest', b'digits')
    lines = [*others, first] if damage == 'half' else [first, *others]
    path.write_bytes(b''.join(lines))
    entries, damaged = read_index(cached)
    assert (len(entries), damaged) == (2, 1)
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])
    assert '1 lines are damaged' in logged[0]
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert (report.num_written, report.num_kept) == (1, 2)
    assert len(read_index(cached)[0]) == 3


class StopTestError(Exception):
    pass


def test_an_interrupted_run_goes_on(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add = FrameCacheWriter.add

    def stop_in_the_second(
        self: FrameCacheWriter, key: str, frames: np.ndarray, about: Any
    ) -> CacheEntry:
        if not self.entries:
            return add(self, key, frames, about)
        # the frames are there by half, and so is the line
        path = self.folder / '00000.frames'
        with open(path, 'ab') as file:
            file.write(frames.tobytes()[:1000])
        with open(self.folder / 'index.txt', 'ab') as file:
            file.write(b'0123abcd {"key": ')
        raise StopTestError

    monkeypatch.setattr(FrameCacheWriter, 'add', stop_in_the_second)
    with pytest.raises(StopTestError):
        build_frame_cache(make_set(), tmp_path / 'cache', num_workers=1)
    monkeypatch.undo()
    report = build_frame_cache(make_set(), tmp_path / 'cache', num_workers=1)
    assert (report.num_written, report.num_kept) == (2, 1)
    assert report.num_renewed == 0
    entries, damaged = read_index(report.folder)
    assert (len(entries), damaged) == (3, 0)
    size = (report.folder / '00000.frames').stat().st_size
    assert size == sum(entry.num_bytes for entry in entries.values())
    assert report.num_bytes == size
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])


FULL_DISK = """
import resource, sys
from pathlib import Path
from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.frame_cache_building import build_frame_cache
folder, limit = sys.argv[1], int(sys.argv[2])
dataset = TextVideoDataset('test.json', data_root=folder, pipeline=[
    dict(type='OpenVideo'), dict(type='SampleFrames', num_frames=4),
    dict(type='DecodeFrames'), dict(type='ResizeCenterCrop', size=32)])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build_frame_cache(dataset, Path(folder) / 'cache', num_workers=1)
except OSError as err:
    print('stopped:', err)
"""


@pytest.mark.parametrize('limit', [500, 9300, 12000])
def test_a_full_disk_leaves_nothing_half_written(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    limit: int,
) -> None:
    """Frames of the first item take 9216 bytes, a line about 270."""
    result = subprocess.run(
        [sys.executable, '-c', FULL_DISK, str(tmp_path), str(limit)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert 'stopped:' in result.stdout
    (folder,) = (tmp_path / 'cache').iterdir()
    entries, damaged = read_index(folder)
    assert len(entries) == (limit > 9216)
    assert damaged == 0
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert report.num_kept == len(entries)
    assert report.num_written == 3 - len(entries)
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])


def test_a_full_disk_in_the_middle_of_a_line(tmp_path: Path) -> None:
    about = dict(
        frame_indices=[0], fps='1', num_frames_reported=1, size=1, changed=1,
        digest='',
    )  # fmt: skip
    frames = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FrameCacheWriter(tmp_path, ['x']) as writer:
        line = len(writer.add('a', frames, about).to_line())
        resource.setrlimit(resource.RLIMIT_FSIZE, (line + 50, before[1]))
        try:
            with pytest.raises(OSError, match='File too large'):
                writer.add('b', frames, about)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        entries, damaged = read_index(writer.folder)
        assert (list(entries), damaged) == (['a'], 1)
    with FrameCacheWriter(tmp_path, ['x']) as writer:
        assert list(writer.entries) == ['a']
        writer.add('b', frames + 1, about)
    entries, damaged = read_index(writer.folder)
    assert (list(entries), damaged) == (['a', 'b'], 0)


def test_many_files_and_one_writer(tmp_path: Path) -> None:
    about = dict(
        frame_indices=[0], fps='1', num_frames_reported=1, size=1, changed=1,
        digest='',
    )  # fmt: skip
    with FrameCacheWriter(tmp_path, ['x'], shard_bytes=30) as writer:
        for number in range(5):
            frames = np.full((1, 2, 2, 3), number, dtype=np.uint8)
            writer.add(f'v{number}', frames, about)
        with pytest.raises(RuntimeError, match='another process is writing'):
            FrameCacheWriter(tmp_path, ['x'])
    entries, _ = read_index(writer.folder)
    assert [entry.shard for entry in entries.values()] == [0, 0, 1, 1, 2]
    assert [entry.offset for entry in entries.values()] == [0, 12, 0, 12, 0]
    with FrameCacheWriter(tmp_path, ['x'], shard_bytes=30) as writer:
        assert writer.add('v5', frames, about).offset == 12


def test_broken_videos_are_reported(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    (tmp_path / 'a.mp4').write_bytes(b'no video')
    (tmp_path / 'b.mp4').unlink()
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert report.num_written == 1
    assert list(report.failed) == ['a', 'b'] or set(report.failed) == {
        'a',
        'b',
    }
    assert 'a.mp4: expected a video' in report.failed['a']
    assert 'b.mp4' in report.failed['b']
    dataset = make_set('cache', on_missing='skip')
    assert [dataset[i]['data_samples'].video_id for i in range(3)] == ['c'] * 3
    assert dataset.lost_videos.indices() == [0, 1]


def test_an_error_inside_a_reader_is_the_loss_of_one_video(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = PyAVReader.get_batch

    def fail_on_a(self: PyAVReader, *args: Any) -> np.ndarray:
        if self.path.endswith('a.mp4'):
            raise ValueError('cannot reshape')
        return read(self, *args)

    monkeypatch.setattr(PyAVReader, 'get_batch', fail_on_a)
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert report.num_written == 2
    assert list(report.failed) == ['a']
    for words in ('a.mp4', 'pyav', 'ValueError: cannot reshape'):
        assert words in report.failed['a']


def test_parts_of_one_video_are_different_items(
    make_set: Callable[..., TextVideoDataset],
    frame_numbers: Callable,
    tmp_path: Path,
    metainfo: dict[str, Any],
) -> None:
    from eaglenet_mm.datasets import write_annotation

    write_annotation(
        tmp_path / 'test.json',
        metainfo,
        [
            dict(video_id='x', video='a.mp4', captions=['one']),
            dict(video_id='y', video='a.mp4', captions=['1'], start=1, end=2),
        ],
    )
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert report.num_written == 2
    dataset = make_set('cache')
    assert frame_numbers(dataset[0]['inputs']['frames']) == [0, 10, 20]
    assert frame_numbers(dataset[1]['inputs']['frames']) == [10, 20]


def test_a_file_that_changes_while_it_is_read(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    write_clip: Callable[..., Path],
) -> None:
    class Exchange:
        """Stands for a copy of the file that ends meanwhile."""

        cacheable = True

        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            if results['video_id'] == 'a':
                write_clip('a.mp4', num_frames=9)
            return results

        def __repr__(self) -> str:
            return 'Exchange()'

    dataset = make_set()
    dataset.pipeline.transforms.insert(4, Exchange())
    # in this process: the class cannot travel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'eaglenet_mm.datasets.frame_cache_building.run_isolated',
            lambda function, items, **options: (
                Outcome(place, 'done', function(item))
                for place, item in enumerate(items)
            ),
        )
        report = build_frame_cache(dataset, tmp_path / 'cache')
    assert list(report.failed) == ['a']
    assert 'the file changed while it was read' in report.failed['a']
    assert report.num_written == 2
