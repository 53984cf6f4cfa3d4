"""Readers that hang, are slow, or raise what they like."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.video_readers import (
    GuardedReader,
    PyAVReader,
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoTimeoutError,
    open_video,
    reading_progress,
)
from tests.datasets.video_readers.backends import few

PLACES = ['__init__', 'timeline', 'get_batch', 'stream', 'close']


class OddReader(VideoReader):
    """Does something odd in one place.

    Args:
        where (str): One of ``PLACES``.
        act (Callable): What is done there; given the reader.
    """

    def __init__(
        self, source: str, *, name: str, where: str, act: Callable
    ) -> None:
        super().__init__(source, name=name)
        self.where, self.act = where, act
        self.num_frames = 9
        self._odd('__init__')

    def _odd(self, where: str) -> None:
        if where == self.where:
            self.act(self)

    @property
    def timeline(self) -> Any:
        self._odd('timeline')
        return None

    def get_batch(
        self, indices: Sequence[int], each: Callable | None = None
    ) -> np.ndarray:
        self._odd('get_batch')
        return np.zeros((len(indices), 4, 4, 3), np.uint8)

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            if index == 2:
                self._odd('stream')
            yield index, np.full((4, 4, 3), index, np.uint8)

    def close(self) -> None:
        self._odd('close')


def use(act: Callable, where: str, time_limit: float = 0) -> list[int]:
    """Do all that can be done with a reader."""
    guard = GuardedReader(
        OddReader,
        'odd.mp4',
        name='odd.mp4',
        backend='odd',
        time_limit=time_limit,
        where=where,
        act=act,
    )
    assert guard.num_frames == 9
    with guard as reader:
        assert reader.timeline is None
        assert reader.get_batch([1, 2]).shape == (2, 4, 4, 3)
        return [int(frame[0, 0, 0]) for _, frame in reader.stream(range(5))]


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that ends what hangs when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize('time_limit', [0, 9])
@pytest.mark.parametrize('where', PLACES)
def test_whatever_is_raised_names_the_file(
    where: str, time_limit: float
) -> None:
    def fail(reader: VideoReader) -> None:
        raise KeyError('the 7th moof')

    with pytest.raises(
        VideoReadError, match=r"odd\.mp4: .* 'odd' .*KeyError: 'the 7th moof'"
    ) as caught:
        use(fail, where, time_limit)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize('time_limit', [0, 9])
@pytest.mark.parametrize(
    'error', [VideoEndError('known'), ImportError('av'), KeyboardInterrupt()]
)
def test_what_says_more_passes_through(
    error: BaseException, time_limit: float
) -> None:
    def fail(reader: VideoReader) -> None:
        raise error

    for where in PLACES:
        with pytest.raises(type(error)) as caught:
            use(fail, where, time_limit)
        assert caught.value is error


@pytest.mark.parametrize('where', few(PLACES, 3))
def test_a_decoder_that_hangs(where: str, release: threading.Event) -> None:
    begin = time.perf_counter()
    with pytest.raises(
        VideoTimeoutError, match=r"odd\.mp4: .* 0\.4 seconds.*'time_limit'"
    ):
        use(lambda reader: release.wait(30), where, time_limit=0.4)
    assert 0.3 < time.perf_counter() - begin < 10


@pytest.mark.parametrize('where', few(PLACES[::-1]))
def test_a_decoder_that_is_slow_and_moves(where: str) -> None:
    """It takes three times the limit."""

    def move(reader: VideoReader) -> None:
        for _ in range(18):
            time.sleep(0.1)
            reader.progress += 1

    begin = time.perf_counter()
    assert use(move, where, time_limit=0.6) == [0, 1, 2, 3, 4]
    assert time.perf_counter() - begin > 1.8


def test_a_hanging_reader_is_left_alone(release: threading.Event) -> None:
    """Another thread is still busy with it."""
    guard = GuardedReader(
        OddReader,
        'odd.mp4',
        name='odd.mp4',
        backend='odd',
        time_limit=0.2,
        where='stream',
        act=lambda reader: release.wait(30),
    )
    with guard as reader:
        frames = reader.stream(range(5))
        assert [next(frames)[0], next(frames)[0]] == [0, 1]
        begin = time.perf_counter()
        with pytest.raises(VideoTimeoutError):
            next(frames)
        with pytest.raises(VideoTimeoutError, match='given up'):
            reader.get_batch([0])
        assert time.perf_counter() - begin < 5


@pytest.fixture
def new_threads() -> Callable[[], list[threading.Thread]]:
    """List the threads that readers began in this test."""
    before = set(threading.enumerate())
    return lambda: [
        thread
        for thread in threading.enumerate()
        if thread.name == 'video reader' and thread not in before
    ]


def test_one_thread_reads_and_ends(
    write_clip: Callable[..., Path], new_threads: Callable
) -> None:
    path = str(write_clip())
    with open_video(path, time_limit=60) as reader:
        assert [number for number, _ in reader.stream(range(30))] == [
            *range(30)
        ]
        (thread,) = new_threads()
    thread.join(20)
    # nor do those stay of readers that are not closed, or not opened
    left = open_video(path, time_limit=60)
    left.get_batch([3])
    (thread,) = new_threads()
    del left
    gc.collect()
    thread.join(20)
    with pytest.raises(VideoReadError):
        open_video(__file__, time_limit=60)
    for thread in new_threads():
        thread.join(20)
    assert not new_threads()


def test_decoding_stops_when_given_up(
    write_clip: Callable[..., Path],
    new_threads: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decoder that comes back after hours ends then."""
    path = str(write_clip('clip.avi'))
    decode, decoded = PyAVReader.decode, []

    def slowly(self: PyAVReader) -> Iterator[Any]:
        for frame in decode(self):
            decoded.append(frame)
            time.sleep(1)
            yield frame

    monkeypatch.setattr(PyAVReader, 'decode', slowly)
    with (
        open_video(path, time_limit=0.25) as reader,
        pytest.raises(VideoTimeoutError),
    ):
        reader.get_batch([29])
    for thread in new_threads():
        thread.join(20)
    assert len(decoded) < 10


def test_errors_and_frames_pass_through(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    with open_video(str(write_clip()), time_limit=60) as reader:
        assert reader.num_frames == reader.num_frames_reported == 30
        before = reading_progress()
        assert frame_numbers(reader.get_batch([2, 29])) == [2, 29]
        assert reading_progress() != before
        with pytest.raises(ValueError, match='none of them negative'):
            reader.get_batch([-1])
        reader.cancel()
        with pytest.raises(VideoTimeoutError):
            reader.get_batch([3])


@pytest.mark.parametrize('time_limit', [0, 60])
def test_a_failing_video_is_skipped(
    ann_file: str,
    clips: None,
    monkeypatch: pytest.MonkeyPatch,
    time_limit: float,
) -> None:
    read = PyAVReader.get_batch

    def fail_on_c(self: PyAVReader, *args: Any) -> np.ndarray:
        if self.path.endswith('c.mp4'):
            raise ZeroDivisionError('no time base')
        return read(self, *args)

    monkeypatch.setattr(PyAVReader, 'get_batch', fail_on_c)
    dataset = make_set(ann_file, time_limit)
    assert dataset[2]['video_id'] in ('a', 'b')
    assert dataset.lost_videos.indices() == [2]


def test_a_hanging_video_is_skipped_once(
    ann_file: str,
    clips: None,
    monkeypatch: pytest.MonkeyPatch,
    release: threading.Event,
) -> None:
    read = PyAVReader.get_batch
    hung = []

    def hang_on_c(self: PyAVReader, *args: Any) -> np.ndarray:
        if self.path.endswith('c.mp4'):
            hung.append(self.path)
            release.wait(30)
        return read(self, *args)

    monkeypatch.setattr(PyAVReader, 'get_batch', hang_on_c)
    dataset = make_set(ann_file, 0.4)
    for _ in range(2):
        assert dataset[2]['video_id'] in ('a', 'b')
    assert len(hung) == 1
    assert dataset.lost_videos.indices() == [2]


def make_set(ann_file: str, time_limit: float) -> TextVideoDataset:
    return TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(Path(ann_file).parent)),
        pipeline=[
            dict(type='OpenVideo', time_limit=time_limit),
            dict(type='SampleFrames', num_frames=2),
            dict(type='DecodeFrames'),
        ],
        on_missing='skip',
    )


@pytest.mark.parametrize('time_limit', [0, 60])
def test_what_is_done_with_frames_is_no_fault_of_the_file(
    write_clip: Callable[..., Path], time_limit: float
) -> None:
    error = KeyError('a bug')

    def each(number: int, frame: np.ndarray) -> np.ndarray:
        raise error

    with open_video(str(write_clip()), time_limit=time_limit) as reader:
        with pytest.raises(KeyError) as caught:
            reader.get_batch([3], each)
        assert caught.value is error
        assert reader.get_batch([3], lambda number, frame: frame).shape[0] == 1


def test_the_thread_ends_where_closing_fails(
    write_clip: Callable[..., Path],
    new_threads: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = open_video(str(write_clip()), time_limit=60)
    (thread,) = new_threads()
    monkeypatch.setattr(reader.reader, 'close', lambda: 1 / 0)
    with pytest.raises(VideoReadError, match='ZeroDivisionError'):
        reader.close()
    thread.join(20)
    assert not thread.is_alive()


def test_a_bug_of_a_transform_is_not_skipped(
    ann_file: str, clips: None
) -> None:
    dataset = make_set(ann_file, 0)

    def fail(results: dict[str, Any]) -> None:
        raise KeyError('a bug')

    dataset.pipeline.transforms[2].resize = fail
    with pytest.raises(KeyError, match='a bug'):
        dataset[0]
    assert not len(dataset.lost_videos)


def test_a_video_that_cannot_be_sampled_is_closed(
    ann_file: str, clips: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = PyAVReader.close

    def counted(self: PyAVReader) -> None:
        closed.append(self.path)
        close(self)

    dataset = make_set(ann_file, 60)
    item = {**dataset.get_data_info(0), 'start': 900.0, 'end': 901.0}
    monkeypatch.setattr(PyAVReader, 'close', counted)
    assert dataset.process(item) is None
    assert closed == [item['video']]
