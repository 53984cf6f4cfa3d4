"""When the frames of a video are on display, and which are at a rate."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .video_readers.video_header import header_of

# Seconds. Matroska and FLV round times to milliseconds.
_MOST_ROUNDING = Fraction(1, 2000)
# Seconds. A longer step of the time stamps is an error in them; the clock of
# MPEG-TS and MPEG-PS may begin anew anywhere.
_LONGEST_STEP = 3600
_LONGEST_STEP_OF_BROADCASTS = 10
# FFmpeg's AVFMT_TS_DISCONT
_CLOCK_MAY_JUMP = 0x200
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


@dataclass(frozen=True)
class FrameClock:
    """Count the time of frames from the start of the presentation.

    Args:
        zero (Fraction): Time stamp of that start, in seconds.
        nominal_step (Fraction): Seconds from a frame to the next, for where
            their time stamps are missing, go back or are too far apart.
        longest_step (int): Seconds; what is too far apart.
    """

    zero: Fraction
    nominal_step: Fraction
    longest_step: int

    @classmethod
    def of_container(cls, container: Any) -> FrameClock:
        """Make the clock of the first video stream of an open container.

        Zero is that of the file in MP4, MOV and Matroska, and elsewhere the
        beginning of its earliest stream.
        """
        header = header_of(container)
        zero = Fraction(0)
        if not header.is_mov_or_matroska and container.start_time is not None:
            zero = Fraction(container.start_time, 1_000_000)
        may_jump = int(container.format.flags) & _CLOCK_MAY_JUMP
        return cls(
            zero,
            1 / (header.fps or Fraction(25)),
            _LONGEST_STEP_OF_BROADCASTS if may_jump else _LONGEST_STEP,
        )

    def begin(self, frame: Any) -> Fraction:
        """Say when the first frame comes on display, in seconds."""
        if frame.pts is None:
            return Fraction(0)
        return frame.pts * frame.time_base - self.zero

    def step(self, frame: Any, following: Any) -> Fraction:
        """Say how long a frame is on display before the following one."""
        if frame.pts is None or following.pts is None:
            return self.nominal_step
        step = (following.pts - frame.pts) * frame.time_base
        return step if 0 <= step <= self.longest_step else self.nominal_step

    def last_step(self, frame: Any, before: Fraction) -> Fraction:
        """Say how long the last frame is on display.

        Args:
            frame (av.VideoFrame): The last one.
            before (Fraction): The step before it, 0 if it is the only frame.

        Returns:
            Fraction: What the file says, or else as long as the step before.
        """
        # releases of PyAV before 15 do not say
        stated = (getattr(frame, 'duration', 0) or 0) * frame.time_base
        if 0 < stated <= self.longest_step:
            return stated
        return before or self.nominal_step


def sample_by_time(
    frames: Iterable[Any], fps: Fraction, clock: FrameClock
) -> Iterator[tuple[Any, range]]:
    """Choose the frames on display at 0, 1 / fps, 2 / fps, ... seconds.

    A first frame between two of these times stands for the earlier one too.
    Holds one frame at a time.

    Args:
        frames (Iterable[av.VideoFrame]): In order of display.
        fps (Fraction): Frames a second.
        clock (FrameClock): Of the file.

    Yields:
        tuple[av.VideoFrame, range]: A frame, and the numbers of the times at
        which it is on display. There is one at least, of however short a
        video.
    """
    held: Any = None
    begin = step = Fraction(0)
    first = number = 0
    for frame in frames:
        if held is None:
            begin = clock.begin(frame)
            first = max(math.floor((begin + _MOST_ROUNDING) * fps), 0)
            number = first
        else:
            step = clock.step(held, frame)
            begin += step
            stop = _count_until(begin, fps)
            if stop > number:
                yield held, range(number, stop)
                number = stop
        held = frame
    if held is not None:
        # that step is rounded as well
        end = begin + clock.last_step(held, step) - _MOST_ROUNDING
        stop = max(_count_until(end, fps), first + 1)
        if stop > number:
            yield held, range(number, stop)


def _count_until(time: Fraction, fps: Fraction) -> int:
    """Count the times 0, 1 / fps, ... before a time in seconds."""
    return math.ceil((time - _MOST_ROUNDING) * fps)
