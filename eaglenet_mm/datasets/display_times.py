"""When the frames of a video are on display, and which are at a rate."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

# Matroska and FLV round times to milliseconds.
_TIME_ERROR = Fraction(1, 1000)
# Seconds. A larger step of the time stamps, or one back, is an error in them.
_LONGEST_STEP = 3600
# Frames that a decoder may hold back, to put them in order: 16 in H.264.
_MOST_HELD_BACK = 16


def decode_in_order(container: Any, stream: Any) -> Iterator[Any]:
    """Decode a stream, and put the times of its frames in order.

    AVI has times of packets alone, which the decoder hands on with the frames.
    Where these have another order than the packets (B-frames), their times go
    back and forth, and each frame gets the earliest one left instead.

    Args:
        container (av.container.InputContainer): Open file.
        stream (av.VideoStream): One of its video streams.

    Yields:
        av.VideoFrame: In order of display.

    Raises:
        av.FFmpegError, ValueError: If a packet cannot be decoded.
    """
    has_packet_times = container.format.name == 'avi'
    times: list[int] = []
    for packet in container.demux(stream):
        if has_packet_times and packet.pts is not None:
            heapq.heappush(times, packet.pts)
        for frame in packet.decode():
            if times:
                frame.pts = heapq.heappop(times)
            yield frame
        if len(times) > _MOST_HELD_BACK:  # a packet gave no frame
            heapq.heappop(times)


def sample_by_time(
    frames: Iterable[Any], fps: Fraction, nominal_step: Fraction
) -> Iterator[tuple[Any, int]]:
    """Choose the frames on display at 0, 1 / fps, 2 / fps, ... seconds.

    Holds one frame at a time.

    Args:
        frames (Iterable[av.VideoFrame]): In order of display. Time counts
            from the first one.
        fps (Fraction): Frames a second.
        nominal_step (Fraction): Seconds from a frame to the next, for where
            the time stamps are missing, go back, or jump by over an hour.

    Yields:
        tuple[av.VideoFrame, int]: A frame, and at how many of these times it
        is on display. There is one at least, of however short a video.
    """
    held: Any = None
    begin = step = Fraction(0)
    number = 0
    for frame in frames:
        if held is not None:
            step = nominal_step
            if frame.pts is not None and held.pts is not None:
                step = (frame.pts - held.pts) * frame.time_base
            if not 0 <= step <= _LONGEST_STEP:
                step = nominal_step
            begin += step
            repeats = _count_until(begin, fps) - number
            if repeats > 0:
                yield held, repeats
                number += repeats
        held = frame
    if held is not None:
        # releases of PyAV before 15 do not say how long a frame is shown
        duration = getattr(held, 'duration', 0) or 0
        end = begin + (duration * held.time_base if duration else step)
        repeats = _count_until(end, fps) - number
        if repeats > 0 or number == 0:
            yield held, max(repeats, 1)


def _count_until(time: Fraction, fps: Fraction) -> int:
    """Count the times 0, 1 / fps, ... before a time in seconds."""
    return math.ceil((time - _TIME_ERROR) * fps)
