"""Encoding of small copies: decode, sample, scale and encode."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eaglenet_mm.datasets.video_readers import PyAVReader, VideoReadError
from eaglenet_mm.datasets.video_readers.orientation import Orientation
from eaglenet_mm.datasets.video_readers.timeline import MOST_ROUNDING, Clock

# Demuxers of images (besides those ending in '_pipe'), of text rendered as
# images, and of playlists.
_NO_VIDEOS = frozenset({'image2', 'tty', 'hls', 'dash', 'concat'})
# FFmpeg's AVCOL_SPC_RGB and AVCOL_SPC_UNSPECIFIED
_RGB, _UNSPECIFIED = 0, 2


@dataclass(frozen=True)
class CopySettings:
    """Appearance of a copy; see :func:`compress_video`."""

    fps: float | Fraction
    short_side: int
    crf: int

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 240:
            raise ValueError(
                f'fps must be above 0 and at most 240, but got {self.fps}.'
            )
        if self.short_side < 2 or self.short_side % 2:
            raise ValueError(
                'short_side must be an even number of at least 2, since '
                f'yuv420p halves it, but got {self.short_side}.'
            )
        if not 0 <= self.crf <= 51:
            raise ValueError(
                f'crf must be from 0 (lossless) to 51, but got {self.crf}.'
            )
        exact = Fraction(self.fps).limit_denominator(100_000)
        object.__setattr__(self, 'fps', exact)

    def __str__(self) -> str:
        return f'fps {self.fps}, short side {self.short_side}, crf {self.crf}'

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the copy, even numbers."""
        short = min(width, height)
        wanted = min(self.short_side, short)
        return (
            max(width * wanted // short // 2 * 2, 2),
            max(height * wanted // short // 2 * 2, 2),
        )


def check_pyav() -> None:
    """Check that PyAV is installed and can encode H.264."""
    try:
        import av
    except ImportError as err:
        raise ImportError(
            "Compressing videos needs the package 'av'. Install it with: pip "
            "install 'eaglenet_mm[video]'."
        ) from err
    if 'libx264' not in av.codecs_available:
        raise ImportError(
            'Compressing videos needs the encoder libx264, which the FFmpeg '
            'of this PyAV lacks. Install PyAV as a wheel: pip install '
            '--force-reinstall av.'
        )


def encode_copy(source: str, target: str, settings: CopySettings) -> int:
    """Write an H.264 MP4, and return its number of frames."""
    import av

    if not os.path.isfile(source):  # opening a pipe would block forever
        raise VideoReadError(
            f'{source}: expected a file, but it is a broken link, a device, '
            'or was removed meanwhile. Put the video there.'
        )
    with (
        closing(PyAVReader(source)) as reader,
        # 'file:' keeps a colon in the name from being read as a protocol
        av.open(f'file:{target}', 'w', format='mp4') as output,
    ):
        kind = reader.header.container
        if kind.endswith('_pipe') or kind in _NO_VIDEOS:
            raise VideoReadError(
                f'{source}: expected a video, but it is an image, a text or '
                f"a list of files (FFmpeg's format '{kind}'). Move it "
                'elsewhere.'
            )
        clock = reader.packets().clock
        fps = Fraction(settings.fps)
        scale = _Scaler(settings)
        encoder: Any = None
        num_written = 0
        for frame, numbers in sample_by_time(reader.decode(), fps, clock):
            picture = scale(frame)
            if encoder is None:
                encoder = _add_encoder(output, picture, settings)
                context = encoder.codec_context
                context.color_primaries = int(reader.decoder.color_primaries)
                context.color_trc = int(reader.decoder.color_trc)
                aspect = reader.header.pixel_aspect
                swaps = scale.orientation.swaps_sides
                context.sample_aspect_ratio = 1 / aspect if swaps else aspect
            for number in numbers:
                picture.pts, picture.time_base = number, 1 / fps
                output.mux(encoder.encode(picture))
            num_written += len(numbers)
        if encoder is None:
            raise VideoReadError(
                f'{source}: none of its frames can be decoded. Download or '
                'encode the file again, or leave it out.'
            )
        output.mux(encoder.encode())
    return num_written


def sample_by_time(
    frames: Iterable[Any], fps: Fraction, clock: Clock
) -> Iterator[tuple[Any, range]]:
    """Sample the frames on display at 0, 1 / fps, 2 / fps, ... seconds.

    Yields each frame with the range of sampling times at which it is on
    display. A first frame between two of these times counts for the earlier
    one. At least one frame is sampled. Buffers at most three.
    """
    held: Any = None
    ticks: list[int] = []
    first = number = 0
    for tick, frame in clock.pair(frames):
        begin = tick * clock.time_base
        if held is None:
            first = max(math.floor((begin + MOST_ROUNDING) * fps), 0)
            number = first
        elif (stop := _count_until(begin, fps)) > number:
            yield held, range(number, stop)
            number = stop
        held = frame
        ticks = [*ticks[-1:], tick]
    if held is not None:
        # PyAV before 15 does not give the duration of a frame
        duration = getattr(held, 'duration', None)
        end = clock.timeline(ticks, duration).end * clock.time_base
        # a duration is rounded as well
        stop = max(_count_until(end - MOST_ROUNDING, fps), first + 1)
        if stop > number:
            yield held, range(number, stop)


def _count_until(time: Fraction, fps: Fraction) -> int:
    """Count the sampling times 0, 1 / fps, ... before a time."""
    return math.ceil((time - MOST_ROUNDING) * fps)


class _Scaler:
    """Rotation and scaling with FFmpeg, as for the first frame."""

    def __init__(self, settings: CopySettings) -> None:
        self._settings = settings
        self.orientation = Orientation()
        self._size: tuple[int, int] | None = None
        self._made_for: tuple[Any, ...] = ()
        self._graph: Any = None

    def __call__(self, frame: Any) -> Any:
        if self._size is None:
            self.orientation = Orientation.of_frame(frame)
        # size and format may change within a stream
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._made_for:
            self._graph, self._made_for = self._build(frame), kind
        # hide the matrix: some versions of the filters would convert colours,
        # at a loss
        colorspace, frame.colorspace = int(frame.colorspace), _UNSPECIFIED
        self._graph.push(frame)
        picture = self._graph.pull()
        picture.colorspace = colorspace if colorspace != _RGB else _UNSPECIFIED
        # otherwise key frames of the source become key frames of the copy
        picture.pict_type = 0
        return picture

    def _build(self, frame: Any) -> Any:
        import av.filter

        size = (frame.width, frame.height)
        if self.orientation.swaps_sides:
            size = size[::-1]
        self._size = self._size or self._settings.size_of(*size)
        graph: Any = av.filter.Graph()
        if hasattr(graph, 'threads'):
            graph.threads = 1  # instead of an idle thread per core
        scaled = f'{self._size[0]}:{self._size[1]}:out_range=limited:threads=1'
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            *(graph.add(*item) for item in self.orientation.filters),
            graph.add('scale', scaled),
            graph.add('format', 'yuv420p'),
            graph.add('buffersink'),
        ).configure()
        return graph


def _add_encoder(output: Any, picture: Any, settings: CopySettings) -> Any:
    """Add the video stream, with the colours of the first image."""
    stream = output.add_stream('libx264', rate=settings.fps)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = 'yuv420p'
    # libx264's macroblock tree is not deterministic
    stream.options = {'crf': str(settings.crf), 'x264-params': 'mbtree=0'}
    context = stream.codec_context
    context.thread_count = 1
    context.colorspace = int(picture.colorspace)
    context.color_range = int(picture.color_range)
    return stream
