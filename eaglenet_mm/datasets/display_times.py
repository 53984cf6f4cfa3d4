"""When the frames of a video are on display, and which are at a rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

# Matroska and FLV round times to milliseconds.
_TIME_ERROR = Fraction(1, 1000)
# Seconds. A larger step of the time stamps, or one back, is an error in them.
_LONGEST_STEP = 3600


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
    stamps = _TimeStamps()
    held: Any = None
    begin = step = Fraction(0)
    last: Fraction | None = None
    number = 0
    for frame in frames:
        stamp = stamps.of(frame)
        if held is not None:
            step = nominal_step
            if stamp is not None and last is not None:
                step = stamp - last
            if not 0 <= step <= _LONGEST_STEP:
                step = nominal_step
            begin += step
            repeats = _count_until(begin, fps) - number
            if repeats > 0:
                yield held, repeats
                number += repeats
        held, last = frame, stamp
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


class _TimeStamps:
    """Tell the time stamps of frames as FFmpeg's own tools do.

    Containers such as AVI have times of packets alone. The decoder then puts
    them in the order of the frames, where they go back and forth, while the
    times of decoding do not: those that went back less often are taken.
    """

    def __init__(self) -> None:
        self._last_shown: int | None = None
        self._last_decoded: int | None = None
        self._faults = 0  # of times of display minus those of decoding

    def of(self, frame: Any) -> Fraction | None:
        """Return the time in seconds, None if the file does not say."""
        shown, decoded = frame.pts, frame.dts
        if decoded is not None:
            last, self._last_decoded = self._last_decoded, decoded
            self._faults -= last is not None and decoded <= last
        if shown is not None:
            last, self._last_shown = self._last_shown, shown
            self._faults += last is not None and shown <= last
        if shown is None or (self._faults > 0 and decoded is not None):
            shown = decoded
        return None if shown is None else shown * frame.time_base
