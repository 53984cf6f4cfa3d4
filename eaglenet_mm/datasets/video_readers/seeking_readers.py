"""Readers based on decord and torchcodec, for files they read correctly."""

import io
import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from typing import Any

import numpy as np

from eaglenet_mm.datasets.video_readers.base import (
    EachFrame,
    VideoReader,
    VideoReadError,
)
from eaglenet_mm.datasets.video_readers.pyav_reader import PyAVReader
from eaglenet_mm.datasets.video_readers.timeline import Timeline


class _SeekingReader(VideoReader):
    """Reader with its own seeking, for files that PyAV finds suitable."""

    def __init__(
        self, source: str | bytes, *, name: str = '', num_threads: int = 1
    ) -> None:
        super().__init__(source, name=name)
        self._failures: tuple[type[Exception], ...]
        self._library, decoder, self._failures = self._load()
        self._learn_from_pyav()
        try:
            self._reader = self._open(decoder, num_threads)
            self.num_frames = len(self._reader)
        except self._failures as err:
            if 'libtorchcodec' in str(err):  # newer releases load it here
                raise _lacks_torchcodec(err) from err
            raise VideoReadError(
                f'{self.path}: expected a video, but {self._library} cannot '
                f'open it ({_first_line(err)}). Encode the file again, leave '
                "it out, or set backend='auto' in OpenVideo."
            ) from err
        self.num_frames_reported = self.num_frames_reported or self.num_frames

    def _learn_from_pyav(self) -> None:
        """Take times from PyAV; refuse files that may give wrong frames."""
        with closing(
            PyAVReader(self.source, name=self.path, on_step=self._step)
        ) as pyav:
            header = pyav.header
            if not pyav.others_are_exact():
                raise VideoReadError(
                    f'{self.path}: {self._library} may return wrong frames '
                    f'for this file ({header.container}, '
                    f'{header.codec} {header.pixel_format}, '
                    f'{header.num_video_streams} video stream(s)); it is '
                    'exact for progressive 8-bit H.264 and VP9 with closed '
                    'GOPs and without mirroring, in MP4, MOV and Matroska. '
                    "Set backend='auto' or 'pyav' in OpenVideo."
                )
            self._timeline = pyav.timeline
            self.fps = pyav.fps
            self.num_frames_reported = header.num_frames_estimated
            self.pixel_aspect = pyav.pixel_aspect
            self.time_note = pyav.time_note

    @abstractmethod
    def _load(self) -> tuple[str, Any, tuple[type[Exception], ...]]:
        """Import the library; return its name, decoder and errors."""

    @abstractmethod
    def _open(self, decoder: Any, num_threads: int) -> Any:
        """Open the file."""

    @abstractmethod
    def _decode(self, reader: Any, ascending: list[int]) -> np.ndarray:
        """Decode distinct frames, in ascending order."""

    @property
    def timeline(self) -> Timeline:
        """Timeline: Display times of the frames, from PyAV."""
        return self._timeline

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        self._check_indices(indices)
        if each is not None:
            kept = {i: each(i, frame) for i, frame in self.stream(indices)}
            return np.stack([kept[index] for index in indices])
        if max(indices) >= self.num_frames:
            raise self._ended(self.num_frames, max(indices))
        # decord is least exact for unsorted access
        ordered, inverse = np.unique(np.asarray(indices), return_inverse=True)
        try:
            return self._decode(self._reader, ordered.tolist())[inverse]
        except self._failures as err:
            raise VideoReadError(
                f'{self.path}: {self._library} failed to decode frames '
                f'{ordered.tolist()[:8]} ({_first_line(err)}). Encode the '
                "file again, or set backend='auto' in OpenVideo."
            ) from err

    def close(self) -> None:
        self.__dict__.pop('_reader', None)  # may be called twice


class DecordReader(_SeekingReader):
    """Reader based on decord, which seeks to key frames.

    Files for which decord would silently return wrong frames (such as every
    MSVD clip) are refused, see :meth:`PyAVReader.others_are_exact`. For
    arguments and errors see
    :func:`~eaglenet_mm.datasets.video_readers.open_video`.
    """

    def _load(self) -> tuple[str, Any, tuple[type[Exception], ...]]:
        try:
            import decord
        except ImportError as err:
            raise ImportError(
                "Reading videos with decord needs the package 'decord'. "
                "Install it with: pip install decord, or set backend='pyav' "
                'in OpenVideo.'
            ) from err
        # DECORDError derives from Exception alone
        failures = (RuntimeError, decord.DECORDError)
        return 'decord', decord.VideoReader, failures

    def _open(self, decoder: Any, num_threads: int) -> Any:
        # a colon in the name would be read as a protocol
        opened = (
            os.path.abspath(self.source)
            if isinstance(self.source, str)
            else io.BytesIO(self.source)
        )
        reader = decoder(opened, num_threads=num_threads)
        self.fps = Fraction(reader.get_avg_fps()).limit_denominator(1_000_000)
        self.num_frames_reported = len(reader)
        return reader

    def _decode(self, reader: Any, ascending: list[int]) -> np.ndarray:
        return reader.get_batch(ascending).asnumpy()


class TorchCodecReader(_SeekingReader):
    """Reader based on torchcodec, which scans the file before it seeks.

    Files that it does not read correctly are refused, see
    :meth:`PyAVReader.others_are_exact`: torchcodec returned wrong frames in
    AVI with B-frames, and none from MPEG-TS and MPEG-PS. For arguments and
    errors see :func:`~eaglenet_mm.datasets.video_readers.open_video`.
    """

    def _load(self) -> tuple[str, Any, tuple[type[Exception], ...]]:
        try:
            from torchcodec.decoders import VideoDecoder
        # RuntimeError: FFmpeg's libraries are missing
        except (ImportError, RuntimeError, OSError) as err:
            raise _lacks_torchcodec(err) from err
        return (
            'torchcodec',
            VideoDecoder,
            (RuntimeError, ValueError, IndexError),
        )

    def _open(self, decoder: Any, num_threads: int) -> Any:
        return decoder(
            self.source,
            dimension_order='NHWC',
            num_ffmpeg_threads=num_threads,
            seek_mode='exact',
        )

    def _decode(self, reader: Any, ascending: list[int]) -> np.ndarray:
        return reader.get_frames_at(ascending).data.numpy()


def _lacks_torchcodec(err: Exception) -> ImportError:
    return ImportError(
        "Reading videos with torchcodec needs the package 'torchcodec' and "
        'the libraries of FFmpeg. Install both, or set '
        f"backend='auto' in OpenVideo. ({_first_line(err)})"
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of a message that may carry a stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][-200:] if lines else type(error).__name__
