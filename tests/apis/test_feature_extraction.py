"""Features of a folder or an annotation file, in one file."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.apis.feature_file import (
    FeatureFile,
    extract_features,
    list_items,
)
from eaglenet_mm.apis.index_updating import read_lines
from eaglenet_mm.search.errors import IndexWriteError
from eaglenet_mm.search.video_index import VideoIndex


@pytest.fixture
def items(story: Path) -> tuple[list, list]:
    return list_items(str(story / 'test.json'), str(story / 'videos'))


def test_an_annotation_file(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    videos: list[str],
    tmp_path: Path,
) -> None:
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    written = extract_features(encoder, *items, out, num_workers=0)
    found = FeatureFile.load(out)
    assert found.about == written.about
    assert [row['path'] for row in found.about['videos']] == videos
    expected = encoder.encode_files(videos, 0)
    assert found.videos is not None
    assert found.texts is not None
    assert torch.equal(found.videos.frames, expected.frames)
    assert torch.equal(found.videos.frame_mask, expected.frame_mask)
    assert found.vectors is not None
    assert torch.allclose(
        found.vectors, encoder.head.shortlist_video(expected), atol=1e-6
    )
    texts = found.about['texts']
    assert len(texts) == len(found.texts.embeds) == len(items[1])
    owners = [text['video'] for text in texts]
    assert owners == sorted(owners)
    assert set(owners) == set(range(len(videos)))
    # the file is enough to score all pairs
    head = encoder.head
    scores = head(found.texts, found.videos)
    sentences = [text['text'] for text in texts]
    assert torch.allclose(
        scores, inferencer.scores(sentences, videos), atol=2e-6
    )
    assert [path.name for path in tmp_path.iterdir()] == ['f.safetensors']


def test_parts_of_videos(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    items = [
        dict(video_id='a', path=videos[0], start=0.5, end=1.0),
        dict(video_id='b', path=videos[0], start=None, end=None),
    ]
    found = extract_features(
        inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
    )
    assert found.frame_times is not None
    times = found.frame_times[0]
    times = times[~times.isnan()]
    assert len(times) == 2
    assert bool(((times >= 0.5) & (times < 1.0)).all())
    assert not found.frame_times[1].isnan().any()


def test_broken_videos_are_left_out_and_told(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / 'broken.mp4'
    broken.touch()
    items = [
        dict(video_id=name, path=path, start=None, end=None)
        for name, path in (('x', str(broken)), ('y', videos[0]))
    ]
    texts = [
        dict(text='a ring', video=0),
        dict(text='a cross', video=1),
        dict(text='anything', video=None),
    ]
    found = extract_features(
        inferencer.encoder, items, texts, tmp_path / 'f', num_workers=0
    )
    assert list(found.about['unreadable']) == ['x']
    assert [row['video_id'] for row in found.about['videos']] == ['y']
    assert [text['video'] for text in found.about['texts']] == [None, 0, None]


@pytest.fixture
def copies(videos: list[str], tmp_path: Path) -> list[dict[str, Any]]:
    """Items of videos that a test may change."""
    folder = tmp_path / 'copies'
    folder.mkdir()
    paths = [shutil.copy(path, folder) for path in videos]
    return [
        dict(video_id=path, path=path, start=None, end=None) for path in paths
    ]


@pytest.fixture
def interrupt(
    inferencer: RetrievalInferencer, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """Extract, and stop in the sixth video."""
    encoder = inferencer.encoder
    encode = encoder.encode_moments

    def run(
        items: list, texts: list, out: Path, before: Callable = lambda: None
    ) -> list[str]:
        calls: list[str] = []
        is_first = True

        def interrupted(found: Any, names: list[str]) -> Any:
            if names == ['a black frame']:  # for the shapes of rows
                return encode(found, names)
            calls.extend(name.partition('#')[0] for name in names)
            if is_first and len(calls) == 6:
                before()
                raise KeyboardInterrupt
            return encode(found, names)

        monkeypatch.setattr(encoder, 'encode_moments', interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract_features(encoder, items, texts, out, num_workers=0)
        assert not out.exists()
        is_first = False
        calls.clear()
        return calls  # of what comes

    return run


def assert_same(found: FeatureFile, expected: FeatureFile) -> None:
    assert found.about == expected.about
    for one, other in (
        (found.videos, expected.videos),
        (found.texts, expected.texts),
    ):
        assert one is not None
        assert other is not None
        for mine, theirs in zip(one.tensors(), other.tensors(), strict=True):
            assert torch.equal(mine, theirs)


def test_an_interrupted_run_goes_on(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    tmp_path: Path,
    interrupt: Callable,
) -> None:
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    calls = interrupt(*items, out)
    found = extract_features(encoder, *items, out, num_workers=0)
    assert len(calls) == len(items[0]) - 5
    whole = tmp_path / 'w.safetensors'
    assert_same(found, extract_features(encoder, *items, whole, num_workers=0))
    assert sorted(tmp_path.iterdir()) == [out, whole]


def test_a_video_replaced_after_an_interruption(
    inferencer: RetrievalInferencer,
    copies: list[dict[str, Any]],
    tmp_path: Path,
    interrupt: Callable,
) -> None:
    encoder, texts = inferencer.encoder, [dict(text='a ring', video=0)]
    out = tmp_path / 'f.safetensors'
    calls = interrupt(copies, texts, out)
    shutil.copy(copies[4]['path'], copies[1]['path'])
    found = extract_features(encoder, copies, texts, out, num_workers=0)
    assert copies[1]['path'] in calls
    assert copies[2]['path'] not in calls
    assert found.videos is not None
    assert torch.equal(found.videos.frames[1], found.videos.frames[4])
    whole = tmp_path / 'w.safetensors'
    assert_same(
        found, extract_features(encoder, copies, texts, whole, num_workers=0)
    )


def test_rows_of_another_list_are_not_taken(
    inferencer: RetrievalInferencer,
    copies: list[dict[str, Any]],
    tmp_path: Path,
    interrupt: Callable,
) -> None:
    out = tmp_path / 'f.safetensors'
    interrupt(copies, [], out)
    found = extract_features(
        inferencer.encoder, copies[1:3], [], out, num_workers=0
    )
    ids = [row['video_id'] for row in found.about['videos']]
    assert ids == [item['video_id'] for item in copies[1:3]]
    assert not (tmp_path / '.f.safetensors.index').exists()


@pytest.mark.parametrize(
    'damage',
    [
        'cut',
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ('empty', 'zeros', 'other')
        ),
    ],
)
def test_damaged_rows_are_made_again(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    tmp_path: Path,
    interrupt: Callable,
    damage: str,
) -> None:
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    calls = interrupt(*items, out)
    part = tmp_path / '.f.safetensors.index'
    content = part.read_bytes()
    if damage == 'other':
        save_file({'a': torch.zeros(1)}, part)
    else:
        part.write_bytes(
            dict(empty=b'', cut=content[:-9], zeros=bytes(len(content)))[
                damage
            ]
        )
    found = extract_features(encoder, *items, out, num_workers=0)
    assert len(calls) >= len(items[0]) - 5
    whole = tmp_path / 'w.safetensors'
    assert_same(found, extract_features(encoder, *items, whole, num_workers=0))


def test_nothing_is_kept_where_nothing_could_be_read(
    inferencer: RetrievalInferencer, tmp_path: Path
) -> None:
    """The cause need not lie in the files: permissions, a missing codec."""
    path = tmp_path / 'broken.mp4'
    path.touch()
    items = [dict(video_id='x', path=str(path), start=None, end=None)]
    with pytest.raises(ValueError, match='None of 1 videos'):
        extract_features(
            inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
        )
    assert list(tmp_path.iterdir()) == [path]


def test_texts_are_checked_before_videos_are_read(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = inferencer.encoder

    def fail(*_: Any) -> None:
        raise AssertionError('a video was encoded')

    monkeypatch.setattr(encoder, 'encode_moments', fail)

    def refused(text: str, error: type[Exception], words: str) -> None:
        texts = [*items[1][:2], dict(text=text, video=None)]
        with pytest.raises(error, match=words):
            extract_features(
                encoder, items[0], texts, tmp_path / 'f', num_workers=0
            )
        assert list(tmp_path.iterdir()) == []

    for empty in ('', ' \t'):
        refused(empty, ValueError, r'1 of 3 texts are empty.* \[2\]')
    monkeypatch.setattr(encoder.tokenizer.tokenizer, 'unknown', 'error')
    refused('a zeppelin', KeyError, 'zeppelin')


def test_texts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'texts.txt'
    path.write_bytes('\ufeffa ring\r\n\n \t\na cross \n'.encode())
    assert read_lines(path) == ['a ring', 'a cross ']
    path.write_bytes(b'a ring\n\xff')
    with pytest.raises(ValueError, match=r'texts\.txt is no text in UTF-8'):
        read_lines(path)


def _linger(connection: Connection) -> None:
    connection.send('running')
    time.sleep(60)


def test_two_runs_at_once(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    tmp_path: Path,
    interrupt: Callable,
) -> None:
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    context = multiprocessing.get_context('fork')
    outer, inner = context.Pipe()
    other = context.Process(target=_linger, args=(inner,))

    def second() -> None:
        kept = sorted(tmp_path.iterdir())
        with pytest.raises(RuntimeError, match='This process is writing'):
            extract_features(encoder, *items, out, num_workers=0)
        # it has taken nothing away
        assert kept == sorted(tmp_path.iterdir())
        other.start()
        outer.recv()  # it runs, so it has let go of what it was forked with

    interrupt(*items, out, second)
    try:
        # a worker of the first that is still there does not keep its lock
        assert other.is_alive()
        extract_features(encoder, *items, out, num_workers=0)
    finally:
        other.kill()
        other.join()
    assert out.exists()


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / 'f.safetensors'
    with pytest.raises(FileNotFoundError, match=r'extract_features\.py'):
        FeatureFile.load(path)
    path.write_bytes(b'rubbish')
    with pytest.raises(ValueError, match='is damaged'):
        FeatureFile.load(path)
    save_file({'a': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='is no file of features'):
        FeatureFile.load(path)
    about = dict(format='eaglenet_mm features', version='1')
    for name, text in (
        ('a', '{}'),
        ('video.a', '{}'),
        ('video.vectors', '{'),
        ('video.vectors', '[1]'),
    ):
        save_file({name: torch.zeros(1)}, path, {**about, 'about': text})
        with pytest.raises(ValueError, match='is damaged'):
            FeatureFile.load(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError, match='could not be written'):
        FeatureFile().save(tmp_path / 'folder')
    assert [path.name for path in tmp_path.iterdir()] == ['folder']


def test_others_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / 'f.safetensors'
    before = os.umask(0o027)
    try:
        FeatureFile(vectors=torch.zeros(2, 3)).save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / 'f.safetensors', []
    sync = os.fsync

    def note(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, path.exists()))
        sync(handle)

    monkeypatch.setattr(os, 'fsync', note)
    FeatureFile(vectors=torch.zeros(2, 3)).save(path)
    assert synced == [
        (path.stat().st_ino, False),
        (tmp_path.stat().st_ino, True),
    ]


def test_several_items_of_one_file(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    items = [
        dict(video_id=name, path=path, start=None, end=None)
        for name, path in (
            ('x', videos[0]),
            ('y', videos[1]),
            ('z', videos[0]),
        )
    ]
    found = extract_features(
        inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
    )
    assert [row['video_id'] for row in found.about['videos']] == list('xyz')
    assert found.videos is not None
    assert torch.equal(found.videos.frames[0], found.videos.frames[2])
    # an index that is made later keeps what it would have kept
    assert not inferencer.encoder.keeps_patches


def test_what_is_finished_outlives_a_full_disk(
    inferencer: RetrievalInferencer,
    videos: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = [
        dict(video_id=path, path=path, start=None, end=None)
        for path in videos[:3]
    ]
    add, added = VideoIndex.add, []

    def add_two(index: VideoIndex, file: Any, moments: Any) -> Any:
        if len(added) == 2:
            raise IndexWriteError('The disk is full.')
        added.append(file.path)
        return add(index, file, moments)

    monkeypatch.setattr(VideoIndex, 'add', add_two)
    with pytest.raises(IndexWriteError):
        extract_features(
            inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
        )
    monkeypatch.setattr(VideoIndex, 'add', add)
    encode = inferencer.encoder.encode_moments
    again: list[str] = []

    def watch(found: Any, names: Any) -> Any:
        again.extend(names)
        return encode(found, names)

    monkeypatch.setattr(inferencer.encoder, 'encode_moments', watch)
    extract_features(
        inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
    )
    assert again == videos[2:3]
