"""What a container says of its video, without decoding."""

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eaglenet_mm.datasets.video_readers.base import VideoReadError, name_of

_WITH_TIMES = frozenset({'mov', 'mp4', 'matroska', 'webm'})
_HIGHEST_RATE = 10_000  # frames a second; above, it is no rate of frames
_STATES_DURATION = _WITH_TIMES | {'avi', 'flv', 'asf'}
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC


@dataclass(frozen=True)
class VideoHeader:
    """What a container says of its first video stream, covers apart.

    Args:
        container (str): FFmpeg's name of the container, such as ``'avi'``.
        codec (str): FFmpeg's name of the codec, such as ``'h264'``.
        pixel_format (str): FFmpeg's name, such as ``'yuv420p'``.
        fps (Fraction): Mean rate, or the nominal one if that is missing; 0
            if both are.
        num_frames (int): Number of frames in the header, 0 if it has none.
        num_frames_estimated (int): The same, or else the duration times the
            rate, rounded; 0 if the duration is missing too.
        duration (float): Seconds, 0 if the header does not say.
        num_video_streams (int): Video streams of the file, of which the
            first is read.
        video_duration (float): Second at which the video ends, 0 if the
            header does not say or the container has none.
        pixel_aspect (Fraction): Width of a pixel over its height, 1 if the
            header does not say.
    """

    container: str
    codec: str
    pixel_format: str
    fps: Fraction
    num_frames: int
    num_frames_estimated: int
    duration: float
    num_video_streams: int
    video_duration: float = 0.0
    pixel_aspect: Fraction = Fraction(1)

    @property
    def is_mov_or_matroska(self) -> bool:
        """bool: Whether the container states when each frame is shown."""
        return bool(set(self.container.split(',')) & _WITH_TIMES)


def read_header(source: str | bytes, *, name: str = '') -> VideoHeader:
    """Read the header of a video, without decoding.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): Name in messages. Default: the path.

    Returns:
        VideoHeader: What the container says.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is no video.
    """
    with open_container(source, name or name_of(source)) as container:
        return header_of(container)


def header_of(container: Any) -> VideoHeader:
    """Read the header of an open container that has a video stream."""
    stream = video_stream(container)
    decoder = stream.codec_context  # None where there is no decoder
    fps = Fraction(stream.average_rate or stream.guessed_rate or 0)
    if fps > _HIGHEST_RATE:  # of DV, FFmpeg states the ticks of the clock
        fps = Fraction(stream.guessed_rate or 0)
    seconds = Fraction(max(container.duration or 0, 0), 1_000_000)
    estimated = stream.frames
    if not estimated:
        # half up and by the container's duration in microseconds, as OpenCV
        # counts, with which the release reads
        estimated = int(seconds * fps + Fraction(1, 2))
    return VideoHeader(
        container=container.format.name,
        codec=decoder.codec.canonical_name if decoder else '',
        pixel_format=stream.format.name if stream.format else '',
        fps=fps,
        num_frames=stream.frames,
        num_frames_estimated=estimated,
        duration=float(seconds),
        num_video_streams=len(container.streams.video),
        video_duration=_video_duration(container, stream),
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
    )


def _video_duration(container: Any, stream: Any) -> float:
    """Read at which second the video ends; others than these guess it."""
    if not set(container.format.name.split(',')) & _STATES_DURATION:
        return 0.0
    whole = max(container.duration or 0, 0) / 1_000_000
    if not stream.duration:
        return whole
    # of fragments and some edit lists, the start is in both
    begin = stream.start_time or 0
    end = float((begin + stream.duration) * stream.time_base)
    return min(end, whole) if whole else end


def open_container(source: str | bytes, name: str) -> Any:
    """Open a container that has a video stream, with PyAV."""
    try:
        import av
    except ImportError as err:
        raise ImportError(
            "Reading videos with PyAV needs the package 'av'. Install it "
            "with: pip install 'eaglenet_mm[video]'."
        ) from err
    try:
        # metadata is not needed, and need not be UTF-8; 'file:' keeps names
        # with a colon from being taken for a protocol
        container = av.open(
            f'file:{source}'
            if isinstance(source, str)
            else io.BytesIO(source),
            metadata_errors='replace',
        )
    except (av.FFmpegError, OSError, ValueError) as err:
        raise VideoReadError(
            f'{name}: expected a video, but it cannot be opened ({err}). '
            'Download or encode the file again, or leave it out.'
        ) from err
    if video_stream(container) is None:
        container.close()
        raise VideoReadError(
            f'{name}: the file has no video stream. Leave it out.'
        )
    return container


def video_stream(container: Any) -> Any:
    """Return the first video stream that is no cover picture, or None.

    Of AVIF, whose first stream is a still picture even if there are moving
    ones, the first of those.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition.value & _COVER
    ]
    if len(streams) > 1:
        moving = [x for x in streams if x.frames != 1 or x.duration]
        streams = moving or streams
    return streams[0] if streams else None
