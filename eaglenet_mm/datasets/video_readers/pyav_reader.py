"""Exact reader on PyAV, for every container FFmpeg knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .base import VideoReader, VideoReadError


@dataclass(frozen=True)
class VideoHeader:
    """What a container says of its first video stream.

    Args:
        container (str): FFmpeg's name of the container, such as ``'avi'``.
        pixel_format (str): FFmpeg's name, such as ``'yuv420p'``.
        fps (Fraction): Mean rate, or the nominal one if that is missing; 0
            if both are.
        num_frames (int): Number of frames in the header, 0 if it has none.
        num_frames_estimated (int): The same, or else the duration times the
            rate, rounded; 0 if the duration is missing too.
    """

    container: str
    pixel_format: str
    fps: Fraction
    num_frames: int
    num_frames_estimated: int


def read_header(path: str) -> VideoHeader:
    """Read the header of a video, without decoding.

    Args:
        path (str): The file.

    Returns:
        VideoHeader: What the container says.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is no video.
    """
    container = _open(path)
    with container:
        stream = container.streams.video[0]
        fps = Fraction(stream.average_rate or stream.guessed_rate or 0)
        estimated = stream.frames
        if not estimated and container.duration:
            # half up and by the container's duration in microseconds, as
            # OpenCV counts, with which the release reads
            estimated = int(
                container.duration * fps / 1_000_000 + Fraction(1, 2)
            )
        return VideoHeader(
            container=container.format.name,
            pixel_format=stream.format.name if stream.format else '',
            fps=fps,
            num_frames=stream.frames,
            num_frames_estimated=estimated,
        )


class PyAVReader(VideoReader):
    """Decode from the first frame on and keep what is asked for.

    Reading in order is exact for every container and codec, which seeking is
    not. Frames are converted to RGB only when they are kept.

    Args:
        path (str): The file.
        num_threads (int): Threads of the decoder. Defaults to 1: loader
            workers already fill the processors.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is no video.
    """

    def __init__(self, path: str, *, num_threads: int = 1) -> None:
        super().__init__(path)
        self._num_threads = num_threads
        header = read_header(path)
        self.fps = header.fps
        self.num_frames = header.num_frames or self._count_packets()
        self.num_frames_reported = (
            header.num_frames_estimated or self.num_frames
        )

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        wanted, last = set(indices), max(indices)
        kept: dict[int, np.ndarray] = {}
        size: dict[str, int] = {}
        number = -1
        for number, frame in enumerate(self._decode()):
            if number in wanted:
                # a stream may change its size; keep that of the first frame
                size = size or dict(width=frame.width, height=frame.height)
                image = _to_rgb(frame, size)
                kept[number] = np.rot90(image, frame.rotation // 90)
            if number == last:
                return np.stack([kept[index] for index in indices])
        raise self._ended(number + 1, last)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _decode(self) -> Iterator[Any]:
        """Yield the frames in order of display."""
        import av

        with _open(self.path) as container:
            container.streams.video[0].thread_type = 'AUTO'
            container.streams.video[
                0
            ].codec_context.thread_count = self._num_threads
            try:
                yield from container.decode(video=0)
            except (av.FFmpegError, ValueError) as err:
                raise VideoReadError(
                    f'{self.path}: decoding failed ({err}). Copy or encode '
                    'the file again, or leave it out of the annotation.'
                ) from err

    def _count_packets(self) -> int:
        """Count the frames of a container whose header does not."""
        import av

        with _open(self.path) as container:
            stream = container.streams.video[0]
            try:
                return sum(
                    packet.size > 0 for packet in container.demux(stream)
                )
            except av.FFmpegError as err:
                raise VideoReadError(
                    f'{self.path}: counting its frames failed ({err}). Copy '
                    'or encode the file again.'
                ) from err


def _open(path: str) -> Any:
    """Open a container that has a video stream."""
    try:
        import av
    except ImportError as err:
        raise ImportError(
            "Reading videos with PyAV needs the package 'av'. Install it "
            "with: pip install 'eaglenet_mm[video]'."
        ) from err
    try:
        # metadata is not needed, and need not be UTF-8
        container = av.open(path, metadata_errors='replace')
    except (av.FFmpegError, OSError, ValueError) as err:
        raise VideoReadError(
            f'{path}: expected a video, but it cannot be opened ({err}). '
            'Download or encode the file again, or leave it out of the '
            'annotation.'
        ) from err
    if not container.streams.video:
        container.close()
        raise VideoReadError(
            f'{path}: the file has no video stream. Leave it out of the '
            'annotation.'
        )
    return container


def _to_rgb(frame: Any, size: dict[str, int]) -> np.ndarray:
    """Convert a frame, without starting a thread for each core.

    Starting FFmpeg's threads costs more than converting a small picture does
    (8.4 against 2.7 ms for 11 frames of 64 x 64). Older releases of PyAV have
    no choice of threads.
    """
    try:
        return frame.to_ndarray(format='rgb24', threads=1, **size)
    except TypeError:
        return frame.to_ndarray(format='rgb24', **size)
