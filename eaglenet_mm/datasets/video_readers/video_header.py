"""Video headers, read without decoding."""

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eaglenet_mm.datasets.video_readers.base import VideoReadError, name_of

_WITH_TIMES = frozenset({'mov', 'mp4', 'matroska', 'webm'})
_HIGHEST_RATE = 10_000  # frames per second; anything above is not a rate
_STATES_DURATION = _WITH_TIMES | {'avi', 'flv', 'asf'}
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC


@dataclass(frozen=True)
class VideoHeader:
    """Header of the first video stream of a file, cover pictures aside.

    Args:
        container, codec, pixel_format (str): FFmpeg's names, such as
            ``'avi'``, ``'h264'`` and ``'yuv420p'``.
        fps (Fraction): Mean rate, else the nominal one, else 0.
        num_frames (int): Number of frames, 0 if not stated.
        num_frames_estimated (int): The same, else duration times rate,
            rounded; 0 without a duration.
        duration (float): Seconds, 0 if not stated.
        num_video_streams (int): Number of video streams; the first is read.
        video_duration (float): End of the video in seconds, 0 if not stated.
        pixel_aspect (Fraction): Pixel width over pixel height. Default: 1.
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
        """bool: Whether the container states the time of each frame."""
        return bool(set(self.container.split(',')) & _WITH_TIMES)


def read_header(source: str | bytes, *, name: str = '') -> VideoHeader:
    """Read the header of a video, without decoding.

    Args:
        source (str | bytes): Path or content of the file.
        name (str): Name in messages. Default: the path.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is not a video.
    """
    with open_container(source, name or name_of(source)) as container:
        return header_of(container)


def header_of(container: Any) -> VideoHeader:
    """Read the header of an open container that has a video stream."""
    stream = video_stream(container)
    decoder = stream.codec_context  # None where there is no decoder
    fps = Fraction(stream.average_rate or stream.guessed_rate or 0)
    if fps > _HIGHEST_RATE:  # for DV, FFmpeg gives the clock's ticks
        fps = Fraction(stream.guessed_rate or 0)
    seconds = Fraction(max(container.duration or 0, 0), 1_000_000)
    estimated = stream.frames
    if not estimated:
        # rounded as by OpenCV, which the release uses: half up, from the
        # duration of the container in microseconds
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
    """Read when the video ends; other formats only guess it."""
    if not set(container.format.name.split(',')) & _STATES_DURATION:
        return 0.0
    whole = max(container.duration or 0, 0) / 1_000_000
    if not stream.duration:
        return whole
    # with fragments and some edit lists, both contain the start
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
        # metadata need not be UTF-8; 'file:' keeps a colon in the name from
        # being read as a protocol
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
    """Return the first video stream that is not a cover picture, or None.

    In AVIF files the first stream may be a still; moving ones take precedence.
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
