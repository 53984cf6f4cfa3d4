"""Choose the reader that is right for a file."""

import os
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from .base import VideoEndError, VideoReader, VideoReadError
from .decord_reader import DecordReader
from .opencv_reader import OpenCVReader
from .pyav_reader import PyAVReader, VideoHeader, read_header

#: Allowed values of ``backend``.
BACKENDS = ('auto', 'decord', 'pyav', 'opencv')

# Containers in which decord's frames were found equal to those of decoding in
# order; in AVI, MPEG-TS and MPEG-PS they are not.
_DECORD_CONTAINERS = frozenset({'mov', 'mp4', 'matroska', 'webm', 'flv'})


def open_video(
    path: str, *, backend: str = 'auto', num_threads: int = 1
) -> VideoReader:
    """Open a video with the reader that is right for it.

    ``'auto'`` takes decord for 8-bit MP4, MOV, Matroska and FLV files, PyAV
    for everything else, and PyAV again when decord fails to open or to decode.

    Args:
        path (str): The file.
        backend (str): ``'auto'``, ``'decord'``, ``'pyav'`` or ``'opencv'``.
        num_threads (int): Threads of the decoder (not for OpenCV).

    Returns:
        VideoReader: The open reader.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the backend is unknown.
        ImportError: If the package of the backend is missing.
        VideoReadError: If the file cannot be opened as a video.
    """
    check_backend(backend)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Video file '{path}' does not exist. Check 'data_root' and "
            "'data_prefix' in the config, and that the download is complete."
        )
    if backend == 'decord':
        return DecordReader(path, num_threads=num_threads)
    if backend == 'opencv':
        return OpenCVReader(path)
    if backend == 'pyav' or find_spec('decord') is None:
        return PyAVReader(path, num_threads=num_threads)
    header = read_header(path)
    if _decord_is_right(header):
        try:
            return _DecordThenPyAVReader(path, header, num_threads=num_threads)
        except VideoReadError:
            return PyAVReader(path, num_threads=num_threads)
    return PyAVReader(path, num_threads=num_threads)


def check_backend(backend: str) -> None:
    """Refuse a backend that does not exist.

    Raises:
        ValueError: If ``backend`` is none of :data:`BACKENDS`.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f'Video backend must be one of {list(BACKENDS)}, but got '
            f"{backend!r}. Change 'backend' of OpenVideo."
        )


def _decord_is_right(header: VideoHeader) -> bool:
    """Whether decord delivers the right frames in the right colours."""
    containers = set(header.container.split(','))
    # formats with more bits a sample end in their byte order
    eight_bit = not header.pixel_format.endswith(('le', 'be'))
    return bool(containers & _DECORD_CONTAINERS) and eight_bit


class _DecordThenPyAVReader(DecordReader):
    """decord, with PyAV when a frame cannot be decoded by it."""

    def __init__(
        self, path: str, header: VideoHeader, *, num_threads: int
    ) -> None:
        super().__init__(path, num_threads=num_threads)
        self._num_threads = num_threads
        self._fallback: PyAVReader | None = None
        self.fps = header.fps
        self.num_frames_reported = (
            header.num_frames_estimated or self.num_frames
        )

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        if self._fallback is None:
            try:
                return super().get_batch(indices)
            except VideoEndError:
                raise
            except VideoReadError:
                self._fallback = PyAVReader(
                    self.path, num_threads=self._num_threads
                )
        try:
            return self._fallback.get_batch(indices)
        finally:
            self.num_frames = self._fallback.num_frames
