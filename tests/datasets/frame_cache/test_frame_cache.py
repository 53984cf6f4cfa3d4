"""Frames from the cache are those of the video, or are decoded anew."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import lmdb
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
    build_frame_cache,
    frame_cache,
    frame_recipe,
)
from eaglenet_mm.datasets.isolated_workers import Outcome
from eaglenet_mm.datasets.video_readers import PyAVReader
from tests.datasets.video_readers.backends import few
from tests.started import start


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
        'eaglenet_mm.datasets.frame_cache.frame_cache.print_log',
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
    facts = [dict(x['data_samples'].metainfo) for x in (one, other)]
    for fact in facts:
        fact.pop('frame_times', None)  # a cache does not know them
    assert facts[0] == facts[1]


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


@pytest.mark.parametrize('context', few(['fork', 'spawn'], 1))
def test_in_workers(
    make_set: Callable[..., TextVideoDataset], cached: Path, context: str
) -> None:
    read, decoded = make_set('cache'), make_set()
    assert read[0] is not None  # read in the parent as well
    loader = DataLoader(
        read,
        num_workers=2,
        collate_fn=pseudo_collate,
        multiprocessing_context=context,
    )
    for index, batch in enumerate(loader):
        expected = decoded[index]['inputs']['frames']
        assert torch.equal(batch['inputs']['frames'][0], expected)


def test_threads_and_forks_read_at_a_time(
    make_set: Callable[..., TextVideoDataset], cached: Path
) -> None:
    """LMDB opens a database once in a process."""
    read = make_set('cache')
    item = read.get_data_info(0)

    def fill(_: int) -> bool:
        return read.frame_cache.fill(dict(item)) is not None

    with ThreadPool(4) as threads:
        found = threads.map_async(fill, range(400), chunksize=1)
        # forked while they read
        with get_context('fork').Pool(1) as processes:
            assert processes.apply(read.frame_cache.fill, (item,)) is not None
        assert all(found.get(60))


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
    with pytest.raises(ValueError, match='OpenVideo, SampleFrames'):
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


ABOUT = dict(
    frame_indices=[0], fps='1', num_frames_reported=1, size=1, changed=1,
    digest='',
)  # fmt: skip


def ones(number: int) -> np.ndarray:
    return np.full((1, 2, 2, 3), number, dtype=np.uint8)


def test_damaged_frames_are_decoded_anew(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
    tmp_path: Path,
) -> None:
    dataset, decoded = make_set('cache'), make_set()
    item = dataset.get_data_info(0)
    part = dataset.frame_cache.fill(item)['frames'].tobytes()[:9216]
    path = cached / 'frames.lmdb'
    content = bytearray(path.read_bytes())
    assert content.count(part) == 1
    content[content.index(part) + 50] ^= 4
    path.write_bytes(content)
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])
    assert len(logged) == 1
    assert 'the frames are damaged' in logged[0]
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert (report.num_renewed, report.num_kept) == (1, 2)
    assert_equal_items(make_set('cache')[0], decoded[0])
    assert len(logged) == 1


def test_what_is_checked_is_what_is_given_out(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer may use pages again while they are read."""
    cache, path = make_set('cache').frame_cache, cached / 'frames.lmdb'
    item = make_set().get_data_info(0)
    frames, crc32 = cache.fill(dict(item))['frames'], frame_cache.zlib.crc32

    def overwrite(value: Any) -> int:
        checksum = crc32(value)
        content = path.read_bytes()
        part = frames.tobytes()[:9000]
        with path.open('rb+') as file:
            file.write(content.replace(part, bytes(9000)))
        return checksum

    monkeypatch.setattr(frame_cache.zlib, 'crc32', overwrite)
    again = cache.fill(dict(item))['frames']
    np.testing.assert_array_equal(again, frames)


@pytest.mark.parametrize('loss', few(['page', 'file', 'half', 'all']))
def test_lost_frames_are_decoded_anew(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
    loss: str,
) -> None:
    """Also of a file that is cut off while it is read."""
    dataset, decoded = make_set('cache'), make_set()
    path = cached / 'frames.lmdb'
    size = path.stat().st_size
    if loss == 'file':
        path.unlink()
    else:
        left = dict(page=size - 4096, half=size // 2, all=0)[loss]
        os.truncate(path, left)
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])
    assert len(logged) == 3
    assert 'the frames are damaged' in logged[0]
    report = build_frame_cache(decoded, cached.parent)
    assert report.num_written == 3
    assert_equal_items(dataset[2], decoded[2])


def test_a_value_of_another_item_counts_for_nothing(
    make_set: Callable[..., TextVideoDataset],
    cached: Path,
    logged: list[str],
) -> None:
    with (
        lmdb.open(
            str(cached / 'frames.lmdb'), subdir=False, lock=False
        ) as database,
        database.begin(write=True) as transaction,
    ):
        pairs = list(transaction.cursor())
        for (key, _), (_, value) in zip(
            pairs, pairs[1:] + pairs[:1], strict=True
        ):
            transaction.put(key, value)
    dataset, decoded = make_set('cache'), make_set()
    assert_equal_items(dataset[0], decoded[0])
    assert 'they belong to' in logged[0]


def test_caches_of_an_earlier_version_are_named(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    folder = tmp_path / 'cache' / '0a1b2c3d'
    folder.mkdir(parents=True)
    content = dict(format=2, transforms=frame_recipe(
        make_set().pipeline.transforms
    ))  # fmt: skip
    (folder / 'recipe.json').write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r'0a1b2c3d.*outdated'):
        make_set('cache')


class StopTestError(Exception):
    pass


def test_an_interrupted_run_goes_on(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add, added = FrameCacheWriter.add, []

    def stop_in_the_second(
        self: FrameCacheWriter, key: str, frames: np.ndarray, about: Any
    ) -> CacheEntry:
        if added:
            raise StopTestError
        added.append(key)
        return add(self, key, frames, about)

    monkeypatch.setattr(FrameCacheWriter, 'add', stop_in_the_second)
    with pytest.raises(StopTestError):
        build_frame_cache(make_set(), tmp_path / 'cache', num_workers=1)
    monkeypatch.undo()
    report = build_frame_cache(make_set(), tmp_path / 'cache', num_workers=1)
    assert (report.num_written, report.num_kept) == (2, 1)
    assert report.num_renewed == 0
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])


def write_until_killed(folder: Path) -> None:
    with FrameCacheWriter(folder, ['x']) as writer:
        writer.add('a', ones(7), ABOUT)
        assert writer.read('a') is not None
        writer.add('c', ones(7), ABOUT)
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_committed_is_there(tmp_path: Path) -> None:
    process = start(write_until_killed, tmp_path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with FrameCacheWriter(tmp_path, ['x']) as writer:
        found = writer.read('a')
        assert found is not None
        np.testing.assert_array_equal(found[1], ones(7))
        writer.add('b', ones(8), ABOUT)
        with pytest.raises(RuntimeError, match='another process is writing'):
            FrameCacheWriter(tmp_path, ['x'])
    with FrameCacheWriter(tmp_path, ['x']) as writer:
        assert [writer.read(key) is None for key in 'abc'] == [
            False, False, True,
        ]  # fmt: skip
        # one name may be longer than LMDB's keys
        writer.add('a' * 900, ones(9), ABOUT)
        assert writer.read('a' * 900)[1].max() == 9


def build_on_a_full_disk(dataset: Any, folder: Path, limit: int) -> None:
    frame_cache._COMMIT_SECONDS = 0  # commit each item
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        build_frame_cache(dataset, folder, num_workers=1)
    except OSError:
        sys.exit(3)


@pytest.mark.parametrize(
    ('limit', 'num_kept'),
    [(4000, 0), (pytest.param(30000, 1, marks=pytest.mark.nightly))],
)
def test_a_full_disk_leaves_nothing_half_written(
    make_set: Callable[..., TextVideoDataset],
    tmp_path: Path,
    limit: int,
    num_kept: int,
) -> None:
    """Frames of the first item take 9216 bytes, a page 4096."""
    process = start(
        build_on_a_full_disk, make_set(), tmp_path / 'cache', limit
    )
    process.join()
    assert process.exitcode == 3
    report = build_frame_cache(make_set(), tmp_path / 'cache')
    assert report.num_kept == num_kept
    assert report.num_written == 3 - num_kept
    dataset, decoded = make_set('cache'), make_set()
    for index in range(3):
        assert_equal_items(dataset[index], decoded[index])


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
            'eaglenet_mm.datasets.frame_cache.building.run_isolated',
            lambda function, items, **options: (
                Outcome(place, 'done', function(item))
                for place, item in enumerate(items)
            ),
        )
        report = build_frame_cache(dataset, tmp_path / 'cache')
    assert list(report.failed) == ['a']
    assert 'the file changed while it was read' in report.failed['a']
    assert report.num_written == 2
