"""Decode a video, keep few small frames of it, and encode these."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

from .display_times import decode_in_order, sample_by_time
from .video_readers.base import VideoReadError
from .video_readers.orientation import Orientation
from .video_readers.packet_index import PacketIndex, index_packets
from .video_readers.video_header import (
    header_of,
    open_container,
    video_stream,
)

# Demuxers of pictures (with all whose names end with '_pipe'), of texts drawn
# as pictures, and of lists that name other files.
_NO_VIDEOS = frozenset({'image2', 'tty', 'hls', 'dash', 'concat'})
# FFmpeg's AVCOL_SPC_RGB and AVCOL_SPC_UNSPECIFIED
_RGB, _UNSPECIFIED = 0, 2


@dataclass(frozen=True)
class CopySettings:
    """What decides how a copy looks.

    Args:
        fps (float or Fraction): Frames a second, above 0 and at most 240;
            kept as a fraction.
        short_side (int): Pixels of the shorter side, even. A smaller video
            keeps its size.
        crf (int): Quality of libx264, from 0 (no loss) to 51.

    Raises:
        ValueError: If a value is out of its range.
    """

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
                f'crf must be from 0 (no loss) to 51, but got {self.crf}.'
            )
        exact = Fraction(self.fps).limit_denominator(100_000)
        object.__setattr__(self, 'fps', exact)

    def __str__(self) -> str:
        return f'fps {self.fps}, short side {self.short_side}, crf {self.crf}'

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the copy, rounded down to even pixels."""
        short = min(width, height)
        wanted = min(self.short_side, short)
        return (
            max(width * wanted // short // 2 * 2, 2),
            max(height * wanted // short // 2 * 2, 2),
        )


def check_pyav() -> None:
    """Check that PyAV can encode.

    Raises:
        ImportError: If PyAV is missing or was built without libx264.
    """
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


def encode_copy(source: str, file: BinaryIO, settings: CopySettings) -> int:
    """Write a small copy of a video, one frame in memory at a time.

    Args:
        source (str): Path of the video.
        file (BinaryIO): Gets an mp4 of H.264, yuv420p, without sound.
        settings (CopySettings): Rate, size and quality.

    Returns:
        int: Number of frames written.

    Raises:
        OSError: If the file cannot be written.
        VideoReadError: If the source is no video, or not all of it can be
            decoded.
    """
    if not os.path.isfile(source):  # opening a pipe would wait for ever
        raise VideoReadError(
            f'{source}: expected a file, but it is none: a link to nowhere, '
            'a device, or removed meanwhile. Put the video there.'
        )
    watched = _WatchedFile(file)
    try:
        return _encode(source, watched, settings)
    finally:
        if watched.error is not None:
            raise watched.error


class _WatchedFile:
    """A file that keeps its first error, which FFmpeg may hide by another."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self.write = self._watch(file.write)
        self.seek = self._watch(file.seek)
        self.tell = self._watch(file.tell)

    def _watch(self, method: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            try:
                return method(*arguments)
            except OSError as err:
                self.error = self.error or err
                raise

        return call


def _encode(source: str, file: Any, settings: CopySettings) -> int:
    import av

    with (
        open_container(source, source) as container,
        av.open(file, 'w', format='mp4') as output,
    ):
        stream = _stream_to_copy(container, source)
        packets = _index(source)
        fps = Fraction(settings.fps)
        scale = _Scaler(settings)
        encoder: Any = None
        num_written = 0
        frames = _decode(container, stream, source, packets)
        for frame, numbers in sample_by_time(frames, fps, packets.clock):
            picture = scale(frame)
            if encoder is None:
                encoder = _add_encoder(output, picture, settings)
                _describe(encoder.codec_context, stream, scale.orientation)
            for number in numbers:
                picture.pts, picture.time_base = number, 1 / fps
                output.mux(encoder.encode(picture))
            num_written += len(numbers)
        if encoder is None:
            raise VideoReadError(
                f'{source}: no frame of it can be decoded. Download or encode '
                'the file again, or leave it out.'
            )
        output.mux(encoder.encode())
    return num_written


def _stream_to_copy(container: Any, source: str) -> Any:
    """Return the video stream with its decoder set up, if it is a video."""
    kind = container.format.name
    if kind.endswith('_pipe') or kind in _NO_VIDEOS:
        raise VideoReadError(
            f'{source}: expected a video, but it is a picture, a text or a '
            f"list of files (FFmpeg's format '{kind}'). Move it elsewhere."
        )
    stream = video_stream(container)
    if stream.codec_context is None:
        raise VideoReadError(
            f'{source}: this FFmpeg has no decoder for its video. Encode the '
            'file again as H.264.'
        )
    stream.codec_context.thread_count = 1
    return stream


def _index(source: str) -> PacketIndex:
    """Learn from the packets what the times of the frames mean."""
    import av

    with open_container(source, source) as container:
        try:
            return index_packets(container, header_of(container))
        except av.FFmpegError as err:
            raise VideoReadError(
                f'{source}: going through its packets failed ({err}). '
                'Download or encode the file again, or leave it out.'
            ) from err


def _decode(
    container: Any, stream: Any, source: str, packets: PacketIndex
) -> Iterator[Any]:
    """Yield the frames; a part of a video is no copy, so errors end it."""
    import av

    number = 0
    try:
        for frame in decode_in_order(
            container, stream, has_decoding_times=packets.has_decoding_times
        ):
            number += 1
            yield frame
    except (av.FFmpegError, ValueError) as err:
        raise VideoReadError(
            f'{source}: decoding failed after {number} frames ({err}). '
            'Download or encode the file again, or leave it out.'
        ) from err


class _Scaler:
    """Turn and scale frames with FFmpeg, all as the first of them."""

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
        # The filters are to leave the meaning of colours as it is; they would
        # convert it at a loss, some versions of them.
        colorspace, frame.colorspace = int(frame.colorspace), _UNSPECIFIED
        self._graph.push(frame)
        picture = self._graph.pull()
        picture.colorspace = colorspace if colorspace != _RGB else _UNSPECIFIED
        # or the key frames of the source become those of the copy
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
            graph.threads = 1  # or it starts one for each core, to be idle
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
    """Add the stream of the copy, with the colours of its first picture."""
    stream = output.add_stream('libx264', rate=settings.fps)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = 'yuv420p'
    # libx264's macroblock tree makes other bytes of the same frames each time
    stream.options = {'crf': str(settings.crf), 'x264-params': 'mbtree=0'}
    context = stream.codec_context
    context.thread_count = 1
    context.colorspace = int(picture.colorspace)
    context.color_range = int(picture.color_range)
    return stream


def _describe(copy: Any, stream: Any, orientation: Orientation) -> None:
    """Say of the copy how colours and pixels of the source are displayed."""
    decoder = stream.codec_context
    copy.color_primaries = int(decoder.color_primaries)
    copy.color_trc = int(decoder.color_trc)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    copy.sample_aspect_ratio = (
        1 / aspect if orientation.swaps_sides else aspect
    )
