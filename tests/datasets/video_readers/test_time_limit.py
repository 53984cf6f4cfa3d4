"""Readers that do not return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.video_readers import (
    PyAVReader,
    VideoTimeoutError,
    open_video,
)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that ends what hangs when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize('where', ['__init__', 'get_batch'])
def test_a_decoder_that_hangs(
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    release: threading.Event,
    where: str,
) -> None:
    path = str(write_clip())
    monkeypatch.setattr(
        PyAVReader, where, lambda *args, **options: release.wait(30)
    )

    def read() -> None:
        with open_video(path, time_limit=0.3) as reader:
            reader.get_batch([0])

    begin = time.perf_counter()
    with pytest.raises(
        VideoTimeoutError, match=r"clip\.mp4: .* 0\.3 seconds.*'time_limit'"
    ):
        read()
    assert time.perf_counter() - begin < 10


def test_decoding_stops_when_given_up(
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that takes hours does not burn a core for hours."""
    path = str(write_clip('clip.avi'))
    decode, decoded = PyAVReader.decode, []

    def slowly(self):
        for frame in decode(self):
            decoded.append(frame)
            time.sleep(0.1)
            yield frame

    monkeypatch.setattr(PyAVReader, 'decode', slowly)
    with (
        open_video(path, time_limit=0.25) as reader,
        pytest.raises(VideoTimeoutError),
    ):
        reader.get_batch([29])
    for thread in threading.enumerate():
        if thread.name == 'video reader':
            thread.join(20)
    assert len(decoded) < 10


def test_errors_and_frames_pass_through(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    with open_video(str(write_clip()), time_limit=60) as reader:
        assert reader.num_frames == reader.num_frames_reported == 30
        assert frame_numbers(reader.get_batch([2, 29])) == [2, 29]
        with pytest.raises(ValueError, match='none of them negative'):
            reader.get_batch([-1])
        reader.reader.cancel()
        with pytest.raises(VideoTimeoutError):
            reader.get_batch([3])


def test_a_hanging_video_is_skipped_once(
    ann_file: str,
    clips: None,
    monkeypatch: pytest.MonkeyPatch,
    release: threading.Event,
) -> None:
    read = PyAVReader.get_batch
    hung = []

    def hang_on_c(self, indices):
        if self.path.endswith('c.mp4'):
            hung.append(self.path)
            release.wait(30)
        return read(self, indices)

    monkeypatch.setattr(PyAVReader, 'get_batch', hang_on_c)
    dataset = TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(Path(ann_file).parent)),
        pipeline=[
            dict(type='OpenVideo', time_limit=0.4),
            dict(type='SampleFrames', num_frames=2),
            dict(type='DecodeFrames'),
        ],
        on_missing='skip',
    )
    for _ in range(2):
        assert dataset[2]['video_id'] in ('a', 'b')
    assert len(hung) == 1
    assert dataset.lost_videos.indices() == [2]
