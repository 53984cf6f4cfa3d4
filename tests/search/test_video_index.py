"""An index: rows that go in come out, and changes of every kind."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexWriteError,
    OtherModelError,
    VideoIndexError,
)
from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_rows import (
    MODEL,
    make_file,
    make_index,
    make_moments,
)


def contents(index: VideoIndex) -> dict[str, list]:
    """All that a search can see, by path."""
    found: dict[str, list] = {path: [] for path in index.files}
    for moment in index.moments(index.ids):
        ids = torch.tensor([moment.moment_id])
        features, state, times = index.read(ids)
        found[moment.file.path].append(
            (
                moment.start,
                moment.end,
                dataclasses.astuple(moment.file),
                index.vectors(ids).tolist(),
                times.tolist(),
                {k: x.tolist() for k, x in {**features, **state}.items()},
                index.thumbnail(moment.moment_id),
            )
        )
    return found


@pytest.fixture(params=['memory', 'disk'])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> VideoIndex:
    return make_index(
        ':memory:' if request.param == 'memory' else tmp_path / 'index'
    )


def test_rows_are_what_was_added(index: VideoIndex) -> None:
    ids = index.add(make_file(1), make_moments(1, 3))
    assert ids.tolist() == [1, 2, 3]
    assert index.add(make_file(2, error='broken'), None).tolist() == []
    assert index.add(make_file(3), make_moments(3)).tolist() == [4]
    assert len(index) == 4
    assert index.files['/videos/2.mp4'].error == 'broken'
    wanted = torch.tensor([4, 2])
    features, state, times = index.read(wanted)
    first, third = make_moments(1, 3), make_moments(3)
    for found, kept in ((features, 'features'), (state, 'state')):
        for name, tensor in found.items():
            assert torch.equal(tensor[0], getattr(third, kept)[name][0])
            assert torch.equal(tensor[1], getattr(first, kept)[name][1])
    assert torch.equal(index.vectors(wanted)[1], first.vectors[1])
    assert torch.equal(times[1], first.times[1])
    assert index.thumbnail(2) == b'jpeg 1 1'
    assert [x.start for x in index.moments(wanted)] == [0.0, 10.0]
    for missing in (0, 5, -1, 2**70):
        with pytest.raises(KeyError, match='no moment'):
            index.moment(missing)


def test_an_empty_index(index: VideoIndex) -> None:
    assert len(index) == 0
    assert index.ids.shape == (0,)
    assert index.moments(index.ids) == []
    assert len(index.vectors()) == 0
    assert index.store.verify() == {}


changes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9)),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(changes, st.lists(st.integers(0, 4), max_size=3))
def test_any_changes_leave_what_a_new_index_has(
    added: list[tuple[int, int, int]], removed: list[int]
) -> None:
    """Files are replaced and removed; numbers never come again."""
    index, kept = make_index(), {}
    seen: set[int] = set()
    for number, rows, seed in added:
        moments = make_moments(seed, rows) if rows else None
        ids = set(index.add(make_file(number, changed=seed), moments).tolist())
        assert not ids & seen
        seen |= ids
        kept[number] = rows, seed
    for number in set(removed) & set(kept):
        index.remove([f'/videos/{number}.mp4'])
        del kept[number]
    fresh = make_index()
    for number, (rows, seed) in kept.items():
        fresh.add(
            make_file(number, changed=seed),
            make_moments(seed, rows) if rows else None,
        )
    assert contents(index) == contents(fresh)
    assert index.store.verify() == {}


def test_unknown_files(index: VideoIndex) -> None:
    index.add(make_file(1), make_moments(1))
    with pytest.raises(KeyError, match=r'not in the index.*/videos/2\.mp4'):
        index.remove(['/videos/1.mp4', '/videos/2.mp4'])
    with pytest.raises(KeyError, match='not in the index'):
        index.set_tags(['/videos/2.mp4'], ['x'])
    assert len(index) == 1


def test_tags(index: VideoIndex) -> None:
    index.add(make_file(1), make_moments(1))
    index.set_tags(['/videos/1.mp4'], ['b', 'a', 'b'])
    assert index.files['/videos/1.mp4'].tags == ('b', 'a')
    assert index.moment(1).file.tags == ('b', 'a')
    assert index.store.verify() == {}


def test_a_copy_in_another_precision(
    index: VideoIndex, tmp_path: Path
) -> None:
    for number in range(5):
        index.add(make_file(number), make_moments(number, number))
    index.remove(['/videos/1.mp4'])
    index.save(tmp_path / 'same')
    assert contents(VideoIndex.load(tmp_path / 'same')) == contents(index)
    index.save(tmp_path / 'half', precision='float16')
    half = VideoIndex.load(tmp_path / 'half')
    assert half.precision == 'float16'
    exact, rounded = (x.read(x.ids)[0]['frames'] for x in (index, half))
    assert torch.equal(exact.half().float(), rounded)
    with pytest.raises(IndexWriteError, match='exists'):
        index.save(tmp_path / 'same')


def test_what_float16_cannot_hold(tmp_path: Path) -> None:
    index = make_index(precision='float16')
    moments = make_moments(1)
    moments.features['frames'][0, 0, 0] = 70_000
    with pytest.raises(ValueError, match=r"'frames' reaches 7e\+04"):
        index.add(make_file(1), moments)
    assert len(index) == 0
    with pytest.raises(ValueError, match='precision must be one of'):
        make_index(precision='int8')


def test_merging(index: VideoIndex) -> None:
    index.add(make_file(1), make_moments(1, 2))
    other = make_index()
    for number in (2, 3):
        other.add(make_file(number, tags=('x',)), make_moments(number))
    index.merge(other)
    for path, rows in contents(other).items():
        assert contents(index)[path] == rows
    with pytest.raises(VideoIndexError, match='2 files are in both'):
        index.merge(other)
    other.add(make_file(2, changed=9), make_moments(7))
    index.merge(other, replace=True)
    assert index.files['/videos/2.mp4'].changed == 9
    assert len(index) == 4


def test_what_cannot_be_merged(index: VideoIndex) -> None:
    rows = make_moments(0)
    foreign = dataclasses.replace(MODEL, encoders='others')
    with pytest.raises(OtherModelError, match='weights of the encoders'):
        index.merge(VideoIndex.create(':memory:', foreign, rows))
    with pytest.raises(VideoIndexError, match='segments'):
        index.merge(make_index(segment=5.0))
    head = dataclasses.replace(MODEL, head='another')
    with pytest.raises(VideoIndexError, match='different heads'):
        index.merge(VideoIndex.create(':memory:', head, rows))


def test_another_head_may_search_it() -> None:
    MODEL.require(dataclasses.replace(MODEL, head='another'), 'the index')
    own = dataclasses.replace(MODEL, vectors='head')
    own.require(MODEL, 'the index')
    with pytest.raises(OtherModelError, match='own vectors'):
        own.require(dataclasses.replace(MODEL, head='another'), 'the index')


@pytest.mark.parametrize('segment', [-1.0, float('nan'), float('inf')])
def test_segments_that_are_none(segment: float) -> None:
    with pytest.raises(ValueError, match='segment must be'):
        make_index(segment=segment)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('model', {'encoders': 1}),
        ('model', None),
        ('segment', 'x'),
        ('layout', {'vector': {}}),
        ('layout', {'vector': {'v': ['float32', [-1]]}}),
        ('layout', 7),
    ],
)
def test_what_an_index_says_of_itself_is_checked(
    tmp_path: Path, name: str, value: Any
) -> None:
    index = make_index(tmp_path / 'index')
    index.store.set_about(name, value)
    index.close()
    with pytest.raises(DamagedIndexError, match=r'[Mm]ake (it|the index)'):
        VideoIndex.load(tmp_path / 'index')


def test_an_index_of_an_earlier_release(tmp_path: Path) -> None:
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'index.json').write_text('{}')
    with pytest.raises(DamagedIndexError, match='earlier release'):
        VideoIndex.load(tmp_path / 'old')


def test_what_is_less_exact_is_not_merged(index: VideoIndex) -> None:
    half = make_index(precision='float16')
    with pytest.raises(VideoIndexError, match='less exact'):
        index.merge(half)
    half.merge(index)


def test_vectors_of_different_kinds_are_not_merged(index: VideoIndex) -> None:
    own = dataclasses.replace(MODEL, vectors='head')
    other = VideoIndex.create(':memory:', own, make_moments(0))
    for one, two in ((index, other), (other, index)):
        with pytest.raises(VideoIndexError, match='different heads'):
            one.merge(two)


def test_a_copy_that_was_not_finished(
    index: VideoIndex, tmp_path: Path
) -> None:
    index.add(make_file(1), make_moments(1))
    large = make_moments(2)
    large.features['frames'][0, 0, 0] = 1e9
    index.add(make_file(2), large)
    with pytest.raises(ValueError, match='float16 holds'):
        index.save(tmp_path / 'half', precision='float16')
    with pytest.raises(DamagedIndexError, match='not finished'):
        VideoIndex.load(tmp_path / 'half')


def test_a_copy_has_what_the_index_says_of_itself(
    index: VideoIndex, tmp_path: Path
) -> None:
    index.set_about('words', ['a'])
    index.save(tmp_path / 'copy', precision='float16')
    copy = VideoIndex.load(tmp_path / 'copy')
    assert copy.about['words'] == index.about['words'] == ['a']
    # of an index without a row, too
    assert copy.layout.vector.columns['vector'][0] == 'float16'


def test_vectors_are_those_of_the_rows_that_are_listed(
    tmp_path: Path,
) -> None:
    """Though another writer replaces a file by as many rows."""
    with make_index(tmp_path / 'index') as writer:
        writer.add(make_file(1), make_moments(1, 2))
        writer.add(make_file(2), make_moments(2, 2))
        with VideoIndex.load(tmp_path / 'index') as reader:
            assert len(reader.ids) == 4
            writer.add(make_file(1, changed=2), make_moments(3, 2))
            with pytest.raises(KeyError, match='no moment 1'):
                reader.vectors()
            assert reader.refresh()
            assert torch.equal(
                reader.vectors(),
                torch.cat([make_moments(n, 2).vectors for n in (2, 3)]),
            )


@pytest.mark.parametrize('seed', range(3))
def test_nothing_is_wrong_in_silence(tmp_path: Path, seed: int) -> None:
    """Flipped bits and overwritten bytes: an error, or all is right."""
    filters = [
        MomentFilter(path='/videos/'),
        MomentFilter(path='*3.mp4'),
        MomentFilter(after=20, max_duration=25.0),
        MomentFilter(tags=('x',)),
    ]

    def everything(index: VideoIndex) -> list:
        return [
            contents(index),
            index.about,
            index.vectors().tolist(),
            *(index.select(where).tolist() for where in filters),
            *(index.store.ids_of(path).tolist() for path in index.files),
        ]

    path = tmp_path / 'index'
    with make_index(path) as index:
        index.set_about('calibrations', [0.1 * x for x in range(50)])
        for n in range(40):
            file = make_file(
                n,
                changed=n * 10**9,
                duration=float(n),
                tags=('x', 'y')[: n % 3],
            )
            index.add(file, make_moments(n, n % 4) if n % 4 else None)
        whole = everything(index)
    content, draw, found = path.read_bytes(), random.Random(seed), 0
    for attempt in range(50):
        damaged = bytearray(content)
        place = draw.randrange(len(content))
        if attempt % 2:
            damaged[place] ^= 1 << draw.randrange(8)
        else:
            piece = damaged[place : place + draw.randrange(1, 60)]
            damaged[place : place + len(piece)] = draw.randbytes(len(piece))
        path.write_bytes(damaged)
        try:
            with VideoIndex.load(path) as index:
                assert everything(index) == whole, (place, attempt)
        except (DamagedIndexError, KeyError):
            found += 1
            with (
                contextlib.suppress(DamagedIndexError),  # beyond repair
                VideoIndex.load(path, writable=True, repair=True) as own,
            ):
                left = contents(own)
                assert left == {name: whole[0][name] for name in left}
        for name in tmp_path.glob('index?*'):
            name.unlink()
    assert found


def test_what_a_deleted_index_has_left_is_not_read(tmp_path: Path) -> None:
    path, aside = tmp_path / 'index', tmp_path / 'aside'
    with make_index(path) as old:
        old.add(make_file(1), make_moments(1))
        # as if its writer had been killed
        for name in tmp_path.glob('index-*'):
            shutil.copy(name, f'{aside}{name.name[5:]}')
    path.unlink()
    for name in tmp_path.glob('aside-*'):
        name.rename(tmp_path / f'index{name.name[5:]}')
    with make_index(path) as index:
        assert not len(index)
        index.add(make_file(2), make_moments(2))
    assert list(VideoIndex.load(path).files) == ['/videos/2.mp4']


def test_one_of_two_makes_an_index(tmp_path: Path) -> None:
    made, refused = [], []

    def make() -> None:
        try:
            made.append(make_index(tmp_path / 'index'))
        except IndexWriteError:
            refused.append(1)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    made[0].add(make_file(1), make_moments(1))
    assert len(VideoIndex.load(tmp_path / 'index')) == 1


def test_files_while_another_thread_refreshes(tmp_path: Path) -> None:
    index, done, wrong = make_index(tmp_path / 'index'), [], []

    def read() -> None:
        while not done:
            if index.files is None:
                wrong.append(1)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(200):
        index.set_about('number', number)
        index.refresh()
    done.append(1)
    thread.join()
    assert not wrong


NOBODY = 65534


def as_nobody(path: str) -> list[str]:
    """Open an index as a user who may change nothing; names of files."""
    told, tell = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        os.setuid(NOBODY)
        try:
            with VideoIndex.load(path) as index:
                tell.send(list(index.files))
        except VideoIndexError as err:
            tell.send([str(err)])

    child = multiprocessing.get_context('fork').Process(target=run)
    child.start()
    child.join()
    return told.recv()


@pytest.mark.skipif(os.getuid() != 0, reason='only root is several users')
@pytest.mark.parametrize('name', ['index', 'an %41 index?#'])
def test_a_folder_that_may_not_be_written(tmp_path: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o755)
        path = f'{folder}/{name}'
        index = make_index(path)
        index.add(make_file(1), make_moments(1))
        index.close()
        assert as_nobody(path) == ['/videos/1.mp4']
        index = VideoIndex.load(path, writable=True)
        index.add(make_file(2), make_moments(2))
        # copied with its writer at work: what he wrote is not in the file
        Path(f'{folder}/copy').write_bytes(Path(path).read_bytes())
        Path(f'{folder}/copy-wal').write_bytes(
            Path(f'{path}-wal').read_bytes()
        )
        (words,) = as_nobody(f'{folder}/copy')
        assert 'could not be read' in words
        index.close()
