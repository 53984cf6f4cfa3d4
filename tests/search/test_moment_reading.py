"""Videos that are read in segments, in one pass."""

from __future__ import annotations

import io
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eaglenet_mm.datasets.video_readers import (
    Timeline,
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoTimelineError,
    VideoTimeoutError,
    opening,
)
from eaglenet_mm.search import moment_reading
from eaglenet_mm.search.moment_reading import MomentReader
from tests.search.joined_moments import join

#: Frames a second of the videos below.
RATE = 5
PIPELINE = [
    dict(type='OpenVideo', time_limit=0),
    dict(type='SampleFrames', num_frames=4, mode='clean'),
    dict(type='DecodeFrames'),
    dict(type='ResizeCenterCrop', size=8),
    dict(type='TokenizeCaptions'),
    dict(type='PackRetrievalInputs'),
]


class FakeReader(VideoReader):
    """Frame ``i`` is grey of level ``i % 256``; decodes in order.

    Attributes:
        seconds (float): Length that the packets promise.
        true_seconds (float): Length that decoding finds.
        wrong (dict[int, Callable]): What happens at a frame.
        can_seek (bool): Whether frames before the first wanted are passed by.
        cost (int): Progress that it takes to find what is wrong.
        decoded (list[int]): Frames decoded, by all readers.
        passes (int): Calls of ``stream``, of all readers.
        pictures (list): Those delivered, by all readers, weakly.
    """

    seconds = true_seconds = 60.0
    wrong: dict[int, Callable[[], None]]
    can_seek = False
    cost = 0
    first_shown = 0.0
    decoded: list[int]
    passes = 0
    pictures: list[weakref.ref]

    def __init__(self, source: str, *, name: str, num_threads: int) -> None:
        super().__init__(source, name=name)
        self.fps = Fraction(RATE)
        self._seconds = self.seconds
        self.num_frames = self.num_frames_reported = len(self.timeline)

    @property
    def timeline(self) -> Timeline:
        count = round(self._seconds * RATE)
        first = round(self.first_shown * RATE)
        return Timeline(
            range(first, first + count), Fraction(1, RATE), first + count
        )

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        type(self).passes += 1
        wanted = set(indices)
        begin = min(wanted) if self.can_seek else 0
        for number in range(begin, max(wanted) + 1):
            if number >= self.true_seconds * RATE:
                self._seconds = self.true_seconds
                self.time_note = f'the frames end at {self._seconds:g} s'
                raise VideoEndError(f'{self.path}: it ends at {number}')
            if number in self.wrong:
                self.progress += self.cost
                self.wrong[number]()
            self.progress += 1
            self.decoded.append(number)
            if self.true_seconds > self._seconds and number > 99:
                self._seconds = self.true_seconds
                raise VideoTimelineError(f'{self.path}: it goes on')
            if number in wanted:
                picture = np.full((12, 16, 3), number % 256, np.uint8)
                self.pictures.append(weakref.ref(picture))
                yield number, picture
                del picture

    def get_batch(
        self, indices: Sequence[int], each: Callable | None = None
    ) -> np.ndarray:
        frames = dict(self.stream(indices))
        if each is not None:
            frames = {n: each(n, frame) for n, frame in frames.items()}
        return np.stack([frames[index] for index in indices])

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        return [self.timeline.seconds(index) for index in indices]

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeReader]:
    """What reads all files of a test."""

    class Fake(FakeReader):
        wrong: dict[int, Callable[[], None]] = {}  # noqa: RUF012
        decoded: list[int] = []  # noqa: RUF012
        pictures: list[weakref.ref] = []  # noqa: RUF012

    monkeypatch.setitem(opening._READERS, 'pyav', Fake)
    return Fake


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / 'clip.mp4'
    file.touch()
    return str(file)


def read(
    path: str, segment: float | str = 10.0, **options: Any
) -> tuple[Any, list[int]]:
    """Read a file; return all of it, and how many came in each piece."""
    options = dict(num_workers=0) | options
    reader = MomentReader(PIPELINE, segment=segment, **options)
    pieces = list(reader.read([path]))
    assert {name for name, _, _ in pieces} == {path}
    last = [is_last for _, _, is_last in pieces]
    assert last == [*[False] * (len(last) - 1), True]
    joined = join(found for _, found, _ in pieces)
    assert 'annotation' not in joined.error
    for (start, end), frames, times in zip(
        joined.spans, joined.frames, joined.frame_times, strict=True
    ):
        assert all(start <= second < end for second in times)
        assert frames.shape == (len(times), 3, 8, 8)
    return joined, joined.sizes


def numbers(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def spans_to(end: float, start: float = 0.0) -> list[tuple[float, float]]:
    return list(pairwise(np.arange(start, end + 1, 10.0).tolist()))


@pytest.mark.parametrize('num_workers', [0, 1])
def test_one_pass_in_pieces(
    fake: type[FakeReader], path: str, num_workers: int
) -> None:
    fake.seconds = fake.true_seconds = 203.0
    found, sizes = read(path, num_workers=num_workers)
    assert found.spans == [*spans_to(190), (190.0, 203.0)]
    assert sizes == [8, 8, 4]
    assert found.duration == 203
    assert not found.error
    # of the 10 seconds of a segment, 4 evenly
    assert found.frame_times[3] == [30.0, 33.0, 36.0, 39.0]
    assert numbers(found.frames[3]) == [150, 165, 180, 195]
    if not num_workers:
        assert fake.passes == 1
        assert fake.decoded == list(range(max(fake.decoded) + 1))


def test_segments_go_by_the_clock(
    fake: type[FakeReader], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the config says; whole videos are read as it says."""
    fake.seconds = fake.true_seconds = 20.0
    clean = read(path)[0]
    monkeypatch.setitem(PIPELINE[1], 'mode', 'release')
    assert read(path)[0].frame_times == clean.frame_times
    whole = read(path, segment=0)[0]
    assert whole.spans == [(0.0, 20.0)]
    # the release counts by an integer rate, its last second included
    assert whole.frame_times == [[0.0, 6.0, 12.0, 19.0]]
    monkeypatch.setitem(PIPELINE[1], 'fps', 0)
    assert len(read(path)[0].frame_times[0]) == 4


def test_memory_is_that_of_one_segment(
    fake: type[FakeReader], path: str
) -> None:
    fake.seconds = fake.true_seconds = 300.0
    alive = []

    def look() -> None:
        alive.append(sum(picture() is not None for picture in fake.pictures))

    fake.wrong = dict.fromkeys(range(1500), look)
    read(path)
    assert len(fake.pictures) == 120
    assert 3 <= max(alive) <= 5


def test_a_video_that_goes_on(fake: type[FakeReader], path: str) -> None:
    fake.seconds, fake.true_seconds = 40.0, 94.0
    found, _ = read(path)
    assert found.spans == [*spans_to(80), (80.0, 94.0)]
    assert found.duration == 94
    assert not found.error
    assert fake.passes == 2


def test_shots_of_a_video_that_goes_on(
    fake: type[FakeReader], path: str
) -> None:
    pytest.importorskip('scenedetect')
    fake.seconds, fake.true_seconds = 40.0, 94.0
    found, _ = read(path, segment='shots')
    # levels of grey begin anew at frame 256
    assert found.spans == [(0.0, 30.0), (30.0, 51.2), (51.2, 94.0)]
    assert found.duration == 94
    assert not found.error


def test_a_video_that_ends_early(fake: type[FakeReader], path: str) -> None:
    fake.seconds, fake.true_seconds = 3600.0, 24.0
    found, _ = read(path)
    assert found.spans == [(0.0, 10.0), (10.0, 20.0), (20.0, 24.0)]
    assert found.duration == 24
    assert found.error == 'the frames end at 24 s'


def test_segments_before_the_first_frame_are_left_out(
    fake: type[FakeReader], path: str
) -> None:
    fake.seconds = fake.true_seconds = 20.0
    fake.first_shown = 30.0
    found, _ = read(path)
    assert found.spans == [(30.0, 40.0), (40.0, 50.0)]
    assert not found.error


def test_nothing_is_shown(fake: type[FakeReader], path: str) -> None:
    fake.seconds = fake.true_seconds = 0.0
    found, _ = read(path)
    assert not found.spans
    assert 'no frame' in found.error


def damage() -> None:
    raise VideoReadError('no picture')


@pytest.mark.parametrize('can_seek', [False, True])
def test_damage_in_the_middle(
    fake: type[FakeReader], path: str, can_seek: bool
) -> None:
    fake.can_seek = can_seek
    fake.seconds = fake.true_seconds = 300.0
    fake.wrong = {1025: damage}
    found, _ = read(path)
    before, behind = spans_to(200), spans_to(300, 210)
    assert found.spans == before + (behind if can_seek else [])
    span = '200 to 210 s' if can_seek else 'from 200 s on'
    assert found.error == f'{span}: no picture'
    assert found.duration == 300
    # the second pass tells whether there is a way past it
    assert fake.passes == 2


def test_all_damage_is_told(fake: type[FakeReader], path: str) -> None:
    fake.can_seek = True
    fake.seconds = fake.true_seconds = 300.0
    fake.wrong = dict.fromkeys([125, 175, 425], damage)
    found, _ = read(path)
    assert found.spans == [
        *spans_to(20), *spans_to(80, 40), *spans_to(300, 90)
    ]  # fmt: skip
    assert found.error == '20 to 40 s, 80 to 90 s: no picture'
    fake.wrong = dict.fromkeys(range(125, 900, 100), damage)
    assert read(path)[0].error == (
        '20 to 30 s, 40 to 50 s, 60 to 70 s, 5 more parts: no picture'
    )

    def hang() -> None:
        raise VideoTimeoutError('it hangs')

    fake.wrong[925] = hang
    found, _ = read(path)
    assert found.spans[-1] == (170.0, 180.0)
    assert found.error.endswith(
        '60 to 70 s, 5 more parts, from 180 s on: no picture it hangs'
    )


def test_work_on_damage_is_bounded(fake: type[FakeReader], path: str) -> None:
    """A reader that finds in order only how far a damaged file goes."""
    fake.can_seek = True
    fake.seconds = fake.true_seconds = 3600.0
    fake.cost = 17_000
    fake.wrong = dict.fromkeys(range(16_025, 18_000, 50), damage)
    found, _ = read(path)
    assert found.spans == spans_to(3200)
    assert found.error == 'from 3200 s on: no picture'
    assert 10 <= fake.passes <= 14


def test_what_a_transform_raises_is_the_trouble_of_its_file(
    fake: type[FakeReader], path: str, tmp_path: Path
) -> None:
    other = tmp_path / 'other.mp4'
    other.touch()
    reader = MomentReader(PIPELINE, segment=10, num_workers=0)
    resize = reader.transforms[3]
    resize.transform = lambda results: 1 / 0
    found = list(reader.read([path, str(other)]))
    assert [name for name, _, _ in found] == [path, str(other)]
    assert all('ZeroDivisionError' in one.error for _, one, _ in found)


@pytest.mark.parametrize(
    ('happens', 'words'),
    [
        (lambda: time.sleep(60), 'reading it stood still for 1 seconds'),
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            'its process died (SIGKILL) while reading it',
        ),
    ],
)
def test_what_was_read_before_a_process_ends_is_kept(
    fake: type[FakeReader], path: str, happens: Callable, words: str
) -> None:
    fake.seconds = fake.true_seconds = 300.0
    fake.wrong = {1100: happens}  # second 220
    found, sizes = read(path, num_workers=1, time_limit=1)
    assert found.error == words
    assert sizes == [8, 8, 0]  # those not passed on are lost
    assert found.spans == spans_to(160)
    assert found.duration == 300


def test_a_slow_decoder_that_moves_is_waited_for(
    fake: type[FakeReader], path: str
) -> None:
    """Three times the limit before anything is passed on."""
    fake.wrong = dict.fromkeys(range(30), lambda: time.sleep(0.1))
    found, sizes = read(path, num_workers=1, time_limit=1)
    assert not found.error
    assert sum(sizes) == 6


def test_a_hanging_decoder_keeps_what_came_before(
    fake: type[FakeReader], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of OpenVideo, in the process that reads."""
    monkeypatch.setitem(PIPELINE[0], 'time_limit', 0.5)
    fake.wrong = {125: lambda: time.sleep(5)}
    found, _ = read(path)
    assert found.spans == [(0.0, 10.0), (10.0, 20.0)]
    assert found.error.startswith('from 20 s on: the decoder stood still')


def test_thumbnails_are_whole_pictures(
    fake: type[FakeReader], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = dict(type='ResizeCenterCrop', size=8)
    monkeypatch.setitem(PIPELINE[2], 'resize', resize)
    for segment in (0, 30.0):
        found, _ = read(path, segment=segment)
        for jpeg, frames in zip(found.thumbnails, found.frames, strict=True):
            image = Image.open(io.BytesIO(jpeg))
            assert image.size == (16, 12)
            level = np.asarray(image).mean()
            assert abs(level - numbers(frames)[2]) < 2


def test_a_pipeline_without_frames() -> None:
    with pytest.raises(ValueError, match=r'one DecodeFrames.* has 0'):
        MomentReader([dict(type='OpenVideo')])


def test_segments_leave_a_slow_process_before_a_piece_is_full(
    fake: type[FakeReader], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment_reading, '_SECONDS_AT_ONCE', 0.2)
    # a quarter of a second for a segment
    fake.wrong = dict.fromkeys(range(25, 300, 50), lambda: time.sleep(0.25))
    fake.wrong[225] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    found, sizes = read(path, num_workers=1)
    assert found.spans == spans_to(40)
    assert sizes == [1, 1, 1, 1, 0]
    assert 'SIGKILL' in found.error


@pytest.mark.parametrize('segment', [0.0, 10.0])
def test_a_file_is_closed_whatever_happens(
    fake: type[FakeReader],
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    segment: float,
) -> None:
    closed = []
    monkeypatch.setattr(fake, 'close', lambda self: closed.append(self))
    fake.seconds = fake.true_seconds = 0.0
    found, _ = read(path, segment=segment)
    assert not found.frames
    assert len(closed) == 1
    # the name of the file is known where this is told
    assert path not in found.error


def test_errors_of_own_videos_name_no_annotation(
    fake: type[FakeReader], path: str
) -> None:
    """A folder has none."""
    reader = MomentReader(PIPELINE, num_workers=0)
    ((_, found, _),) = reader.read({'clip': (path, (70.0, 80.0))})
    assert 'No frame lies between 70' in found.error
    assert 'annotation' not in found.error
