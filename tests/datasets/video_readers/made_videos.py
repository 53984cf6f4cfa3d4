"""Makers of small video files that know the right answer.

Each frame shows its number as twelve black or white blocks, and a colour in
each corner: red, green above, blue, white below. A maker returns the times by
formula; containers round them to their ticks.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

#: Top left, top right, bottom left, bottom right.
CORNERS = ('red', 'green', 'blue', 'white')
COLOURS = {
    'red': (255, 0, 0),
    'green': (0, 255, 0),
    'blue': (0, 0, 255),
    'white': (255, 255, 255),
}
_COLUMNS, _ROWS = 6, 4  # the two rows in the middle hold the number
_CODEC_OPTIONS = {
    'libx264': {'preset': 'ultrafast', 'crf': '20'},
    'libx265': {
        'preset': 'ultrafast',
        'crf': '20',
        'x265-params': 'log-level=error:pools=none:frame-threads=1',
    },
    'libvpx': {'deadline': 'realtime', 'cpu-used': '8'},
    'libvpx-vp9': {'deadline': 'realtime', 'cpu-used': '8'},
    'libsvtav1': {'preset': '9', 'crf': '15', 'svtav1-params': 'lp=1'},
}


@dataclass(frozen=True)
class MadeVideo:
    """A file and what is right about it.

    Args:
        path (Path): The file.
        times (tuple[Fraction, ...]): Seconds at which each frame is shown, in
            order of display, from the start of the presentation.
        end (Fraction): Seconds at which the last frame ends.
        numbers (tuple[int, ...]): What each frame shows.
        tick (Fraction): Seconds by which the file rounds its times.
    """

    path: Path
    times: tuple[Fraction, ...]
    end: Fraction
    numbers: tuple[int, ...]
    tick: Fraction

    def shown_at(self, seconds: float | Fraction) -> int | None:
        """Index of the frame on display: a look at all times, in turn."""
        found = None
        if seconds < self.end:
            for index, time in enumerate(self.times):
                if time <= seconds:
                    found = index
        return found


def draw_frame(number: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """Draw the picture of a number, RGB, of a width and height."""
    width, height = size
    image = np.full((_ROWS, _COLUMNS, 3), 128, dtype=np.uint8)
    bits = [255 * (number >> bit & 1) for bit in range(12)]
    image[1:3] = np.reshape(bits, (2, _COLUMNS, 1))
    places = ((0, 0), (0, -1), (-1, 0), (-1, -1))
    for place, colour in zip(places, CORNERS, strict=True):
        image[place] = COLOURS[colour]
    rows = np.arange(height) * _ROWS // height
    columns = np.arange(width) * _COLUMNS // width
    return image[rows][:, columns]


def read_number(image: np.ndarray) -> int:
    """Read the number off an RGB picture, (h, w, 3), of any size and turn.

    Raises:
        ValueError: If a block is neither black nor white, or the corners are
            not those of a frame.
    """
    image = _turn_back(image)
    levels = [_block(image, 1 + n // 6, n % 6).mean() for n in range(12)]
    if any(70 < level < 185 for level in levels):
        raise ValueError(f'Blocks of a number have the levels {levels}.')
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


def read_numbers(images: Sequence[np.ndarray]) -> list[int]:
    """Read the numbers off several pictures."""
    return [read_number(image) for image in images]


def read_corners(image: np.ndarray) -> tuple[str, ...]:
    """Name the colours in the corners of an RGB picture, turned or not."""
    height, width = image.shape[:2]
    rows, columns = (_ROWS, _COLUMNS) if width > height else (_COLUMNS, _ROWS)
    names = []
    for row in (0, rows - 1):
        for column in (0, columns - 1):
            seen = _block(image, row, column, rows, columns).mean(axis=(0, 1))
            distances = {
                name: np.abs(seen - colour).sum()
                for name, colour in COLOURS.items()
            }
            names.append(min(distances, key=lambda name: distances[name]))
    return tuple(names)


def _turn_back(image: np.ndarray) -> np.ndarray:
    """Turn and mirror a picture so that its corners are as drawn."""
    for mirrored in (image, image[:, ::-1]):
        for turns in range(4):
            found = np.rot90(mirrored, turns)
            if read_corners(found) == CORNERS:
                return found
    raise ValueError(f'The corners are {read_corners(image)}.')


def _block(
    image: np.ndarray,
    row: int,
    column: int,
    rows: int = _ROWS,
    columns: int = _COLUMNS,
) -> np.ndarray:
    """Cut the middle out of a block."""
    height, width = image.shape[0] / rows, image.shape[1] / columns
    top, left = int((row + 0.3) * height), int((column + 0.3) * width)
    bottom = math.ceil((row + 0.7) * height)
    return image[top:bottom, left : math.ceil((column + 0.7) * width)]


def write_video(
    path: Path,
    times: Sequence[Fraction | int],
    *,
    end: Fraction | int | None = None,
    codec: str = 'libx264',
    time_base: Fraction = Fraction(1, 90000),
    rate: Fraction | int | None = None,
    size: tuple[int, int] = (96, 64),
    first_number: int = 0,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    sound: bool = False,
    **context: object,
) -> MadeVideo:
    """Write frames that are shown at given times.

    Args:
        path (Path): The file; its ending says which container.
        times (Sequence[Fraction]): Seconds, rising.
        end (Fraction | None): Seconds at which the last frame ends. By
            default it lasts as long as the one before.
        codec (str): FFmpeg's encoder.
        time_base (Fraction): Ticks of the encoder. AVI wants a frame a tick.
        rate (Fraction | int | None): Frames a second that the header states.
            By default the mean.
        size (tuple[int, int]): Width and height.
        first_number (int): What the first frame shows.
        options (Mapping | None): Of the encoder, such as ``{'bf': '2'}``.
        container_options (Mapping | None): Of the muxer.
        sound (bool): Whether the file has sound too, from 0 s to ``end``.
        **context (object): Attributes of PyAV's codec context, such as
            ``sample_aspect_ratio``.

    Returns:
        MadeVideo: Counted from zero, whichever time the first frame has.
    """
    exact = [Fraction(time) for time in times]
    if end is None:
        step = exact[-1] - exact[-2] if len(exact) > 1 else Fraction(1, 10)
        end = exact[-1] + step
    end = Fraction(end)
    if rate is None:
        rate = (len(exact) / (end - exact[0])).limit_denominator(1000)
    ticks = [round(time / time_base) for time in [*exact, end]]
    lengths = dict(zip(ticks, np.diff(ticks).tolist(), strict=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(
        str(path), 'w', container_options=dict(container_options or {})
    ) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        stream.options = {**_CODEC_OPTIONS.get(codec, {}), **(options or {})}
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        noise = container.add_stream('aac', rate=8000) if sound else None

        def mux(packets: Sequence[av.Packet]) -> None:
            for packet in packets:
                # an encoder keeps no durations of frames
                packet.duration = lengths[packet.pts]
                container.mux(packet)

        for index, tick in enumerate(ticks[:-1]):
            frame = av.VideoFrame.from_ndarray(
                draw_frame(first_number + index, size), format='rgb24'
            )
            frame.pts, frame.time_base = tick, time_base
            mux(stream.encode(frame))
        mux(stream.encode())
        if noise is not None:
            _write_silence(container, noise, end)
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    numbers = range(first_number, first_number + len(exact))
    return MadeVideo(path, tuple(exact), end, tuple(numbers), tick)


def _write_silence(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    end: Fraction,
) -> None:
    silence = np.zeros((1, 1024), dtype=np.float32)
    for index in range(math.ceil(end * 8000 / 1024)):
        frame = av.AudioFrame.from_ndarray(silence, 'fltp', 'mono')
        frame.sample_rate, frame.pts = 8000, 1024 * index
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_constant(
    path: Path, count: int = 40, rate: Fraction | int = 10, **options: object
) -> MadeVideo:
    """Write frames at a constant rate: frame n at n / rate."""
    rate = Fraction(rate)
    options = {'time_base': 1 / rate, 'rate': rate, **options}
    times = [number / rate for number in range(count)]
    return write_video(path, times, end=count / rate, **options)


# -- times --------------------------------------------------------------------


def fast_then_slow(path: Path, **options: object) -> MadeVideo:
    """300 frames at 30 a second, then 30 at one a second: 40 s."""
    fast = [Fraction(number, 30) for number in range(300)]
    slow = [Fraction(10 + number) for number in range(30)]
    return write_video(path, fast + slow, end=40, **options)


def slow_then_fast(path: Path, **options: object) -> MadeVideo:
    """30 frames at one a second, then 300 at 30 a second: 40 s."""
    slow = [Fraction(number) for number in range(30)]
    fast = [30 + Fraction(number, 30) for number in range(300)]
    return write_video(path, slow + fast, end=40, **options)


def late_start(
    path: Path, delay: Fraction | int = 30, count: int = 40, **options: object
) -> MadeVideo:
    """Ten frames a second behind ``delay`` seconds of sound alone.

    In MP4 an edit list says so, elsewhere the times of the frames.
    """
    times = [delay + Fraction(number, 10) for number in range(count)]
    return write_video(path, times, sound=True, **options)


def skipped_start(
    path: Path, skipped: int = 13, **options: object
) -> MadeVideo:
    """Ten frames a second, of which the edit list of an MP4 skips some.

    What comes first in the presentation is frame ``skipped``, at 0 s.
    """
    video = write_constant(path, **options)
    content = bytearray(path.read_bytes())
    # version and flags, number of edits, duration in the presentation,
    # first tick of the stream
    place = content.index(b'elst') + 4
    ticks = round(Fraction(skipped, 10) / video.tick)
    duration, begin = struct.unpack_from('>Ii', content, place + 8)
    header_ticks = struct.unpack_from(
        '>I', content, content.index(b'mvhd') + 16
    )
    duration -= skipped * header_ticks[0] // 10
    struct.pack_into('>Ii', content, place + 8, duration, begin + ticks)
    path.write_bytes(content)
    begin_at = video.times[skipped]
    return replace(
        video,
        times=tuple(time - begin_at for time in video.times[skipped:]),
        end=video.end - begin_at,
        numbers=video.numbers[skipped:],
    )


def joined_ts(
    path: Path,
    starts: Sequence[int] = (0, 0),
    count: int = 100,
    **options: object,
) -> MadeVideo:
    """Transport streams behind each other, ten frames a second in each.

    Args:
        path (Path): The file.
        starts (Sequence[int]): Seconds that the clock of each begins at. The
            right answer holds where it steps back or jumps by over 10 s.
        count (int): Frames of each.
        **options (object): Of :func:`write_constant`.
    """
    content = b''
    for part, start in enumerate(starts):
        times = [start + Fraction(n, 10) for n in range(count)]
        first = dict(first_number=part * count, rate=10)
        video = write_video(path, times, **{**first, **options})
        content += path.read_bytes()
    path.write_bytes(content)
    total = count * len(starts)
    return replace(
        video,
        times=tuple(Fraction(number, 10) for number in range(total)),
        end=Fraction(total, 10),
        numbers=tuple(range(total)),
    )


def by_steps(
    stamps: Sequence[Fraction | int | None], step: Fraction
) -> tuple[Fraction, ...]:
    """Count from zero with a nominal step where stamps miss or go back."""
    times = [Fraction(0)]
    for before, after in pairwise(stamps):
        known = before is not None and after is not None and after >= before
        times.append(times[-1] + (Fraction(after - before) if known else step))
    return tuple(times)


def odd_stamps_mkv(
    path: Path,
    change: Callable[[int, int], int],
    count: int = 40,
    **options: object,
) -> MadeVideo:
    """Ten frames a second in Matroska, with other time stamps.

    Args:
        path (Path): The file.
        change (Callable): Gets the number of a frame and its milliseconds,
            and returns other ones.
        count (int): Frames.
        **options (object): Of :func:`write_constant`.
    """
    video = write_constant(path, count, **options)
    content = bytearray(path.read_bytes())
    stamps = []
    for cluster, place in _blocks_of(content):
        (relative,) = struct.unpack_from('>h', content, place)
        stamp = change(len(stamps), cluster + relative)
        struct.pack_into('>h', content, place, stamp - cluster)
        stamps.append(Fraction(stamp, 1000))
    assert len(stamps) == count
    path.write_bytes(content)
    times = by_steps(stamps, Fraction(1, 10))
    return replace(video, times=times, end=times[-1] + Fraction(1, 10))


def repeating_stamps(path: Path) -> MadeVideo:
    """Pairs of frames have one time stamp: the first has no display time."""
    return odd_stamps_mkv(path, lambda number, ms: 200 * (number // 2))


def stamps_that_go_back(path: Path) -> MadeVideo:
    """From frame 20 on, the time stamps begin again at 0.5 s."""
    return odd_stamps_mkv(
        path, lambda number, ms: ms if number < 20 else ms - 1500
    )


def missing_stamps_ts(path: Path, step: int = 3) -> MadeVideo:
    """Ten frames a second, of which each ``step``-th alone has a stamp."""
    video = write_constant(path)
    content = bytearray(path.read_bytes())
    found = 0
    for packet in range(0, len(content), 188):
        payload = packet + 4
        if content[packet + 3] & 0x20:  # an adaptation field
            payload += 1 + content[payload]
        if content[payload : payload + 4] == b'\x00\x00\x01\xe0':
            if found % step:
                size = content[payload + 8]
                content[payload + 7] &= 0x3F
                fill = slice(payload + 9, payload + 9 + size)
                content[fill] = b'\xff' * size
            found += 1
    assert found == len(video.times)
    path.write_bytes(content)
    return video


def _blocks_of(content: bytes) -> Iterator[tuple[int, int]]:
    """Give the time of the cluster and the place of the time, per block."""
    cluster = 0
    for name, begin, end in _elements(content, 0, len(content)):
        if name == 0xE7:
            cluster = int.from_bytes(content[begin:end], 'big')
        elif name in (0xA3, 0xA1):  # SimpleBlock, Block
            yield cluster, begin + 1


def _elements(
    content: bytes, begin: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """Walk the elements of Matroska: name, begin and end of the content."""
    while begin < end:
        length = 9 - content[begin].bit_length()
        name = int.from_bytes(content[begin : begin + length], 'big')
        begin += length
        length = 9 - content[begin].bit_length()
        size = int.from_bytes(content[begin : begin + length], 'big')
        size &= (1 << 7 * length) - 1
        begin += length
        stop = min(begin + size, end)  # all ones: of unknown length
        yield name, begin, stop
        # Segment, Info, Cluster, BlockGroup
        if name in (0x18538067, 0x1549A966, 0x1F43B675, 0xA0):
            yield from _elements(content, begin, stop)
        begin = stop


# -- what the header says -----------------------------------------------------


def with_header_duration(video: MadeVideo, seconds: float) -> MadeVideo:
    """Write another duration into the header of a Matroska or MP4 file.

    The right answer stays: the frames decide.
    """
    content = bytearray(video.path.read_bytes())
    if video.path.suffix in ('.mkv', '.webm'):
        for name, begin, end in _elements(content, 0, len(content)):
            if name == 0x4489:
                assert end - begin == 8
                struct.pack_into('>d', content, begin, 1000.0 * seconds)
    else:
        for name, before in ((b'mvhd', 12), (b'mdhd', 12)):
            place = content.index(name) + 4
            (ticks,) = struct.unpack_from('>I', content, place + before)
            duration = round(seconds * ticks)
            struct.pack_into('>I', content, place + before + 4, duration)
    video.path.write_bytes(content)
    return video


def cut_off(video: MadeVideo, share: float = 0.5) -> MadeVideo:
    """Keep the first part of the bytes of a Matroska or TS file.

    The right answer has the frames that FFmpeg decodes of it.
    """
    size = int(os.path.getsize(video.path) * share)
    video.path.write_bytes(video.path.read_bytes()[:size])
    with av.open(str(video.path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    return replace(
        video,
        times=video.times[:count],
        end=video.times[count],
        numbers=video.numbers[:count],
    )


# -- orientation and shape ----------------------------------------------------

#: Display matrices (a, b, c, d): a pixel (x, y), y down, is displayed at
#: (a x + c y, b x + d y). All products of quarter turns and mirrors.
MATRICES = {
    'none': (1, 0, 0, 1),
    'clockwise': (0, 1, -1, 0),
    'half turn': (-1, 0, 0, -1),
    'against the clock': (0, -1, 1, 0),
    'left-right': (-1, 0, 0, 1),
    'upside down': (1, 0, 0, -1),
    'transposed': (0, 1, 1, 0),
    'transposed and half turn': (0, -1, -1, 0),
}


def turned(video: MadeVideo, matrix: Sequence[float]) -> MadeVideo:
    """Write a display matrix (a, b, c, d) into an MP4 file."""
    content = bytearray(video.path.read_bytes())
    place = content.index(b'tkhd') + 4 + 40
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    struct.pack_into('>9i', content, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.path.write_bytes(content)
    return video


def with_h264_metadata(
    path: Path, change: str, count: int = 20, **options: object
) -> MadeVideo:
    """H.264 whose headers FFmpeg's filter ``h264_metadata`` has changed."""
    plain = path.with_name(f'plain_{path.name}')
    video = write_constant(plain, count, **options)
    with av.open(str(plain)) as old, av.open(str(path), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        metadata = BitStreamFilterContext(
            f'h264_metadata={change}', old.streams.video[0], stream
        )
        for packet in [*old.demux(video=0), None]:
            if packet is None or packet.size:
                for changed in metadata.filter(packet):
                    changed.stream = stream
                    new.mux(changed)
    plain.unlink()
    return replace(video, path=path)
