"""When the frames of a video are on display, and which are at a rate."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from .video_readers.timeline import Clock

# Seconds. Matroska and FLV round times to milliseconds.
_MOST_ROUNDING = Fraction(1, 2000)
# Frames that a decoder may hold back, to put them in order: 16 in H.264.
_MOST_HELD_BACK = 16


def decode_in_order(
    container: Any, stream: Any, *, has_decoding_times: bool
) -> Iterator[Any]:
    """Decode a stream, and put the times of its frames in order.

    AVI, and what was made of it, has times of packets alone, which the decoder
    hands on with the frames. Where these have another order than the packets
    (B-frames), their times go back and forth, and each frame gets the earliest
    one left instead.

    Args:
        container (av.container.InputContainer): Open file.
        stream (av.VideoStream): One of its video streams.
        has_decoding_times (bool): Whether it is such a file, see
            :class:`~eaglenet_mm.datasets.video_readers.packet_index.PacketIndex`.

    Yields:
        av.VideoFrame: In order of display.

    Raises:
        av.FFmpegError, ValueError: If a packet cannot be decoded.
    """
    times: list[int] = []
    for packet in container.demux(stream):
        if has_decoding_times and packet.pts is not None:
            heapq.heappush(times, packet.pts)
        for frame in packet.decode():
            if times:
                frame.pts = heapq.heappop(times)
            yield frame
        if len(times) > _MOST_HELD_BACK:  # a packet gave no frame
            heapq.heappop(times)


def sample_by_time(
    frames: Iterable[Any], fps: Fraction, clock: Clock
) -> Iterator[tuple[Any, range]]:
    """Choose the frames on display at 0, 1 / fps, 2 / fps, ... seconds.

    A first frame between two of these times stands for the earlier one too.
    Holds three frames at most.

    Args:
        frames (Iterable[av.VideoFrame]): In order of display.
        fps (Fraction): Frames a second.
        clock (Clock): Of the file.

    Yields:
        tuple[av.VideoFrame, range]: A frame, and the numbers of the times at
        which it is on display. There is one at least, of however short a
        video.
    """
    held: Any = None
    ticks: list[int] = []
    first = number = 0
    for tick, frame in clock.pair(frames):
        begin = tick * clock.time_base
        if held is None:
            first = max(math.floor((begin + _MOST_ROUNDING) * fps), 0)
            number = first
        elif (stop := _count_until(begin, fps)) > number:
            yield held, range(number, stop)
            number = stop
        held = frame
        ticks = [*ticks[-1:], tick]
    if held is not None:
        # releases of PyAV before 15 do not say how long a frame is shown
        duration = getattr(held, 'duration', None)
        end = clock.timeline(ticks, duration).end * clock.time_base
        # a duration is rounded as well
        stop = max(_count_until(end - _MOST_ROUNDING, fps), first + 1)
        if stop > number:
            yield held, range(number, stop)


def _count_until(time: Fraction, fps: Fraction) -> int:
    """Count the times 0, 1 / fps, ... before a time in seconds."""
    return math.ceil((time - _MOST_ROUNDING) * fps)
