"""Reader on OpenCV, for machines with neither decord nor PyAV."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from typing import Any

import cv2
import numpy as np

from .base import VideoReader, VideoReadError
from .colours import describe_colours, taken_for
from .pyav_reader import PyAVReader

# Mean difference of grey levels; other roundings of colour give up to 2.
_SAME_PICTURE = 6


class OpenCVReader(VideoReader):
    """Grab from the first frame on and convert what is asked for.

    Reading in order is exact, seeking with OpenCV is not. Where OpenCV cannot
    convert a frame (interlaced video, in some versions) it delivers a black
    one or rubbish, without an error. Where PyAV is installed, interlaced
    videos are refused, and those of whose batch the first frame is another
    than PyAV's.

    Args:
        source (str | bytes): Path of the file, or its content, which goes
            through a temporary file.
        name (str): What messages call it. Defaults to the path.

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
        try:
            capture = self._open()
        except VideoReadError:
            self.close()
            raise
        rate = capture.get(cv2.CAP_PROP_FPS)
        if np.isfinite(rate) and rate > 0:
            self.fps = Fraction(rate).limit_denominator(1_000_000)
        reported = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if reported <= 0:  # a header without a length gives rubbish
            reported = 0
            while capture.grab():
                reported += 1
        capture.release()
        self.num_frames = self.num_frames_reported = reported

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        wanted, last = set(indices), max(indices)
        kept: dict[int, np.ndarray] = {}
        capture = self._open()
        try:
            for number in range(last + 1):
                self._check_cancelled()
                if not capture.grab():
                    raise self._ended(number, last)
                if number in wanted:
                    decoded, image = capture.retrieve()
                    if not decoded:
                        raise VideoReadError(
                            f'{self.path}: OpenCV failed to decode frame '
                            f'{number}. Encode the file again, or set '
                            "backend='auto' in OpenVideo."
                        )
                    kept[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        self._compare(min(kept), kept[min(kept)])
        first = kept[min(kept)].shape[:2]
        return np.stack(
            [
                kept[index]
                if kept[index].shape[:2] == first
                else cv2.resize(kept[index], first[::-1])
                for index in indices
            ]
        )

    def close(self) -> None:
        """Remove the temporary file: others are open only while read."""
        if self._temporary:
            os.unlink(self._temporary)
            self._temporary = ''

    def _open(self) -> cv2.VideoCapture:
        """Open the file by FFmpeg alone."""
        # 'file:' keeps names with a colon from being taken for a protocol
        capture = cv2.VideoCapture(f'file:{self._file}', cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoReadError(
                f'{self.path}: expected a video, but OpenCV cannot open it. '
                'Download or encode the file again, or leave it out of the '
                'annotation.'
            )
        return capture

    def _compare(self, number: int, image: np.ndarray) -> None:
        """Refuse a frame that is nothing like the one PyAV delivers."""
        if find_spec('av') is None:
            return
        with closing(PyAVReader(self.source, name=self.path)) as reader:
            other = reader.get_batch([number])[0]
            reason = ''
            if reader.is_interlaced():
                reason = 'it is interlaced, which OpenCV may convert wrongly'
            elif other.shape != image.shape:
                reason = (
                    f'OpenCV delivers frames of the shape {image.shape}, '
                    f'PyAV of {other.shape}'
                )
            elif _difference(other, image) > _SAME_PICTURE:
                frame = next(islice(reader.decode(), number, None))
                reason = _why_other(frame, image, number)
        if reason:
            raise VideoReadError(
                f"{self.path}: {reason}. Set backend='auto' or 'pyav' in "
                'OpenVideo.'
            )


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of grey levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def _why_other(frame: Any, image: np.ndarray, number: int) -> str:
    """Say why OpenCV's picture is not that of PyAV's frame."""
    stated = describe_colours(frame)
    taken = taken_for(frame, image, _SAME_PICTURE)
    if taken:
        return (
            'OpenCV and PyAV convert its colours differently: the stream '
            f"states {stated}, and OpenCV's picture is that of {taken}"
        )
    return (
        f'OpenCV delivers another frame {number} than PyAV, as it does where '
        f'converting fails (the colours of the stream: {stated})'
    )
