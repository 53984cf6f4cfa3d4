"""An index in memory and on the disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eaglenet_mm.search import video_index
from eaglenet_mm.search.errors import OtherModelError, VideoIndexError
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_parts import (
    FRAMES,
    MODEL,
    WIDTH,
    make_file,
    make_moments,
)


def contents(index: VideoIndex) -> dict[str, list]:
    """All that a search can see, by path."""
    found: dict[str, list] = {path: [] for path in index.files}
    ids = index.row_ids
    if len(ids):
        state, frames = index.read(ids)
    for place, entry in enumerate(index.entries(ids)):
        found[entry.file.path].append(
            (
                entry.start,
                entry.end,
                entry.file,
                index.vectors(ids[place : place + 1])[0].tolist(),
                index.frame_times(ids[place : place + 1])[0].tolist(),
                {
                    name: tensor[place].tolist()
                    for name, tensor in state.items()
                },
                frames[place].tolist(),
                index.thumbnail(entry.row_id),
            )
        )
    return found


def expected(files: dict[int, tuple[int, int]]) -> dict[str, list]:
    """The same of files: number to (rows, seed)."""
    reference = VideoIndex(MODEL)
    for number, (rows, seed) in files.items():
        moments = make_moments(seed, rows) if rows else None
        reference.add(make_file(number, changed=seed), moments)
    return contents(reference)


@pytest.fixture(params=['memory', 'disk'])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> VideoIndex:
    if request.param == 'memory':
        return VideoIndex(MODEL)
    return VideoIndex.create(tmp_path / 'index', MODEL)


def test_rows_are_what_was_added(index: VideoIndex) -> None:
    ids = index.add(make_file(1), make_moments(1, 3))
    assert ids.tolist() == [0, 1, 2]
    assert index.add(make_file(2, error='broken'), None).tolist() == []
    assert index.add(make_file(3), make_moments(3)).tolist() == [3]
    assert len(index) == 4
    assert index.files['/videos/2.mp4'].error == 'broken'
    wanted = torch.tensor([3, 1])
    state, frames = index.read(wanted)
    first, third = make_moments(1, 3), make_moments(3)
    for name, tensor in state.items():
        assert torch.equal(tensor[0], third.state[name][0])
        assert torch.equal(tensor[1], first.state[name][1])
    assert frames.shape == (2, FRAMES, WIDTH)
    assert torch.allclose(frames[1], first.frames[1], atol=1e-3)
    assert torch.equal(index.vectors(wanted)[1], first.vectors[1])
    assert torch.equal(index.frame_times(wanted)[1], first.frame_times[1])
    assert index.thumbnail(1) == b'jpeg 1 1'
    assert [entry.start for entry in index.entries(wanted)] == [0.0, 10.0]
    assert index.rows_of_file('/videos/1.mp4').tolist() == [0, 1, 2]
    assert index.rows_of_file('/videos/2.mp4').tolist() == []


def test_an_empty_index(index: VideoIndex) -> None:
    assert len(index) == 0
    assert index.row_ids.shape == (0,)
    assert index.entries(index.row_ids) == []
    assert len(index.vectors(index.row_ids)) == 0
    index.compact()
    index.verify()


def test_a_changed_file_takes_the_place_of_the_old(index: VideoIndex) -> None:
    index.add(make_file(1), make_moments(1, 2))
    index.add(make_file(2), make_moments(2))
    ids = index.add(make_file(1, changed=5), make_moments(5))
    assert ids.tolist() == [3]
    assert index.row_ids.tolist() == [2, 3]
    assert index.files['/videos/1.mp4'].changed == 5
    with pytest.raises(KeyError, match=r'no rows \[0\]'):
        index.read(torch.tensor([0]))


def test_removing(index: VideoIndex) -> None:
    index.add(make_file(1), make_moments(1, 2))
    index.add(make_file(2), make_moments(2))
    with pytest.raises(KeyError, match=r'1 files are not .*/videos/9'):
        index.remove(['/videos/1.mp4', '/videos/9.mp4'])
    assert len(index) == 3
    assert index.remove(['/videos/1.mp4']) == 2
    assert list(index.files) == ['/videos/2.mp4']
    # it may come back, under new numbers
    assert index.add(make_file(1), make_moments(1)).tolist() == [3]
    assert index.thumbnail(3) == b'jpeg 1 0'
    assert index.row_ids.tolist() == [2, 3]


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """An outer database knows rows by number."""
    with VideoIndex.create(tmp_path / 'i', MODEL) as index:
        index.add(make_file(1), make_moments(1, 2))
        index.add(make_file(2), make_moments(2, 2))
        index.remove(['/videos/2.mp4'])
        index.compact()
    with VideoIndex.load(tmp_path / 'i', writable=True) as index:
        assert index.add(make_file(3), make_moments(3)).tolist() == [4]


def test_copies_and_precision(index: VideoIndex, tmp_path: Path) -> None:
    for number in range(5):
        index.add(make_file(number), make_moments(number, 2))
    index.remove(['/videos/2.mp4'])
    index.save(tmp_path / 'same')
    assert contents(VideoIndex.load(tmp_path / 'same')) == contents(index)
    for precision, error in (('float16', 1e-2), ('int8', 3e-2)):
        index.save(tmp_path / precision, precision=precision)
        copy = VideoIndex.load(tmp_path / precision)
        copy.verify()
        state, _ = copy.read(copy.row_ids)
        exact, _ = index.read(index.row_ids)
        for name, tensor in state.items():
            assert torch.allclose(
                tensor.float(), exact[name].float(), atol=error
            )
        assert torch.equal(state['mask'], exact['mask'])
    half = VideoIndex.load(tmp_path / 'float16')
    with pytest.raises(VideoIndexError, match='float16 cannot become'):
        half.save(tmp_path / 'finer', precision='float32')


def test_merging(index: VideoIndex) -> None:
    other = VideoIndex(MODEL)
    for number in (3, 4):
        other.add(make_file(number), make_moments(number, 2))
    index.add(make_file(1), make_moments(1))
    index.merge(other)
    assert len(index) == 5
    assert index.row_ids.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(VideoIndexError, match=r'2 files are in both.*/3.mp4'):
        index.merge(other)
    index.merge(other, replace=True)
    assert len(index) == 5
    assert len(other) == 4


def test_merging_what_does_not_fit(index: VideoIndex) -> None:
    foreign = VideoIndex(dataclasses.replace(MODEL, weights='others'))
    with pytest.raises(OtherModelError, match='another model: weights differ'):
        index.merge(foreign)
    with pytest.raises(VideoIndexError, match='segments of one index are 0'):
        index.merge(VideoIndex(MODEL, segment=10))


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    VideoIndex.create(tmp_path / 'i', MODEL).close()
    index = VideoIndex.load(tmp_path / 'i')
    with pytest.raises(VideoIndexError, match='writable=True'):
        index.add(make_file(1), make_moments(1))
    assert len(index) == 0


operations = st.lists(
    st.one_of(
        st.tuples(st.just('add'), st.integers(0, 6), st.integers(0, 3)),
        st.tuples(st.just('remove'), st.integers(0, 6), st.just(0)),
        st.tuples(st.just('compact'), st.just(0), st.just(0)),
        st.tuples(st.just('reopen'), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@example(
    # a wasteful part is joined behind a later one, and both again
    operations=[
        ('add', 0, 2),
        ('add', 1, 1),
        ('compact', 0, 0),
        ('add', 0, 1),
        ('compact', 0, 0),
        ('compact', 0, 0),
    ]
)
@given(operations=operations)
def test_any_sequence_of_changes(
    operations: list, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The disk, after any changes, holds what a dict would."""
    folder = tmp_path_factory.mktemp('sequence') / 'index'
    index = VideoIndex.create(folder, MODEL)
    files: dict[int, tuple[int, int]] = {}
    for step, (kind, number, rows) in enumerate(operations):
        seed = 100 + step
        if kind == 'add':
            moments = make_moments(seed, rows) if rows else None
            index.add(make_file(number, changed=seed), moments)
            files[number] = (rows, seed)
        elif kind == 'remove' and number in files:
            index.remove([f'/videos/{number}.mp4'])
            del files[number]
        elif kind == 'compact':
            index.compact()
        elif kind == 'reopen':
            index.close()
            index = VideoIndex.load(folder, writable=True)
    wanted = expected(files)
    assert contents(index) == wanted
    index.close()
    assert contents(VideoIndex.load(folder)) == wanted


def test_parts_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_index, '_JOIN_EVERY', 8)
    with VideoIndex.create(tmp_path / 'i', MODEL) as index:
        for number in range(100):
            index.add(make_file(number, changed=number), make_moments(number))
        parts = list((tmp_path / 'i').glob('part-*'))
        assert len(parts) < 16
        assert len(index) == 100
    again = VideoIndex.load(tmp_path / 'i')
    assert contents(again) == expected({n: (1, n) for n in range(100)})
    again.verify()
