"""Video reader based on OpenCV, for machines without decord and PyAV."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from typing import Any

import cv2
import numpy as np

from eaglenet_mm.datasets.video_readers.base import (
    EachFrame,
    VideoReader,
    VideoReadError,
)
from eaglenet_mm.datasets.video_readers.orientation import Orientation
from eaglenet_mm.datasets.video_readers.pyav_reader import (
    PyAVReader,
    describe_colours,
)
from eaglenet_mm.datasets.video_readers.timeline import Clock, Timeline

# Mean absolute pixel difference; other colour rounding gives up to 2.
_SAME_PICTURE = 6


class OpenCVReader(VideoReader):
    """Sequential reader that converts only the requested frames.

    Sequential reading is exact, seeking with OpenCV is not. Images are rotated
    by quarter turns only, as in the authors' release. For frames that OpenCV
    cannot convert (interlaced video, in some versions), it silently returns
    black or garbage. Where PyAV is installed, interlaced videos are therefore
    refused, and the first frame of each batch is compared with PyAV's. Without
    PyAV, times count from the first frame, whose display time OpenCV does not
    report.

    Args:
        source (str | bytes): Path or content of the file; content is written
            to a temporary file.
        name (str): Name in messages. Default: the path.

    Raises:
        VideoReadError: If OpenCV cannot open the file.
    """

    def __init__(self, source: str | bytes, *, name: str = '') -> None:
        super().__init__(source, name=name)
        self._temporary = ''
        if isinstance(source, bytes):
            handle, self._temporary = tempfile.mkstemp(suffix='.video')
            with open(handle, 'wb') as file:
                file.write(source)
        self._file = self._temporary or str(source)
        self._timeline: Timeline | None = None
        self._seconds: list[float] = []  # since the first frame, as read
        self._begin = 0.0
        try:
            with self._open() as capture:
                self._read_header(capture)
        except BaseException:
            self.close()
            raise

    def _read_header(self, capture: cv2.VideoCapture) -> None:
        rate = capture.get(cv2.CAP_PROP_FPS)
        if np.isfinite(rate) and rate > 0:
            self.fps = Fraction(rate).limit_denominator(1_000_000)
        reported = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if reported <= 0:  # no length in the header
            reported = 0
            while capture.grab():
                self._step()
                reported += 1
        self.num_frames = self.num_frames_reported = reported
        sides = [
            int(capture.get(number))
            for number in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)
        ]
        if all(side > 0 for side in sides):
            turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
            self.pixel_aspect = Fraction(*sides[:: -1 if turned else 1])

    @property
    def timeline(self) -> Timeline:
        """Timeline: Display times of the frames, from PyAV if installed."""
        if self._timeline is None:
            if find_spec('av') is not None:
                with closing(self._pyav()) as reader:
                    reader.measure()
                    self._timeline = reader.timeline
                    self.time_note = reader.time_note
            else:
                self._timeline = self._measure()
            self.num_frames = len(self._timeline)
        return self._timeline

    @property
    def has_variable_rate(self) -> bool:
        """bool: Whether frame intervals differ, as far as read."""
        if self._timeline is not None:
            return self._timeline.is_variable
        ticks = [round(1_000_000 * second) for second in self._seconds]
        return Timeline(ticks, Fraction(1, 1_000_000), 0).is_variable

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        kept: dict[int, np.ndarray] = {}
        for number, image in self.stream(indices):
            kept[number] = image if each is None else each(number, image)
        return np.stack([kept[index] for index in indices])

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames in one pass; see :meth:`VideoReader.stream`.

        All are resized to the size of the first.
        """
        self._check_indices(indices)
        wanted, last = set(indices), max(indices)
        size: tuple[int, int] | None = None
        self._seconds = seconds = []
        with self._open() as capture:
            for number in range(last + 1):
                self._step()
                if not capture.grab():
                    raise self._ended(number, last)
                seconds.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                if number not in wanted:
                    continue
                decoded, image = capture.retrieve()
                if not decoded:
                    raise VideoReadError(
                        f'{self.path}: OpenCV failed to decode frame '
                        f'{number}. Encode the file again, or set '
                        "backend='auto' in OpenVideo."
                    )
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                if size is None:
                    self._compare(number, image)
                    size = image.shape[1], image.shape[0]
                elif size != (image.shape[1], image.shape[0]):
                    image = cv2.resize(image, size)
                yield number, image

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Return display times; before reading, from the mean rate."""
        if self._timeline is not None:
            return [self._timeline.seconds(index) for index in indices]
        if max(indices) < len(self._seconds):
            return [self._begin + self._seconds[index] for index in indices]
        return super().frame_times(indices)

    def _measure(self) -> Timeline:
        """Read the times of all frames, counted from the first."""
        stamps: list[int | None] = []
        with self._open() as capture:
            while capture.grab():
                self._step()
                milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
                stamps.append(round(1000 * milliseconds))
        clock = Clock(Fraction(1, 1_000_000), self.fps)
        return clock.timeline(list(clock.ticks(stamps)), None)

    def close(self) -> None:
        """Remove the temporary file; captures are closed after each read."""
        if self._temporary:
            os.unlink(self._temporary)
            self._temporary = ''

    @contextmanager
    def _open(self) -> Iterator[cv2.VideoCapture]:
        """Open the file temporarily, with FFmpeg only."""
        # 'file:' keeps a colon in the name from being read as a protocol
        capture = cv2.VideoCapture(f'file:{self._file}', cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoReadError(
                f'{self.path}: expected a video, but OpenCV cannot open it. '
                'Download or encode the file again, or leave it out.'
            )
        try:
            yield capture
        finally:
            capture.release()

    def _pyav(self) -> PyAVReader:
        """Open the same file with PyAV; its progress counts as ours."""
        return PyAVReader(self.source, name=self.path, on_step=self._step)

    def _compare(self, number: int, image: np.ndarray) -> None:
        """Refuse the video if a frame differs from PyAV's."""
        if find_spec('av') is None:
            return
        with closing(self._pyav()) as reader:
            reader.follows_release = self.follows_release
            other = reader.get_batch([number])[0]
            reason = ''
            if reader.is_interlaced():
                reason = 'it is interlaced, which OpenCV may convert wrongly'
            elif _difference(other, image) > _SAME_PICTURE:
                frame = next(islice(reader.decode(), number, None))
                reason = _why_other(frame, image, number)
            [begin] = reader.frame_times([number])
            self._begin = begin - self._seconds[number]
        if reason:
            raise VideoReadError(
                f"{self.path}: {reason}. Set backend='auto' or 'pyav' in "
                'OpenVideo.'
            )


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute pixel difference; infinite if the shapes differ."""
    if one.shape != other.shape:
        return math.inf
    return float(np.abs(one.astype(np.int16) - other).mean())


def _why_other(frame: Any, image: np.ndarray, number: int) -> str:
    """Explain why OpenCV's image is not that of PyAV's frame."""
    plain = frame.to_ndarray(format='rgb24')
    for mirrored in (False, True):
        for turns in range(4):
            turned = Orientation(turns, mirrored).apply(plain)
            if _difference(turned, image) <= _SAME_PICTURE:
                return (
                    'OpenCV does not rotate or mirror its frames as the file '
                    'specifies'
                )
    return (
        f'OpenCV returns another frame {number} than PyAV, as it does when it '
        'cannot convert the colours or misinterprets them (shape '
        f'{image.shape}, PyAV {plain.shape}; the stream states '
        f'{describe_colours(frame)})'
    )
