"""When the frames of a video are on display."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

#: Seconds. A longer step is an error of the time stamps, in formats whose
#: clock may start anew (MPEG-TS, MPEG-PS) and in all others.
_LONGEST_STEP_OF_BROADCASTS = 10
_LONGEST_STEP = 3600
# FFmpeg's AVFMT_TS_DISCONT
_CLOCK_MAY_JUMP = 0x0200
# Seconds by which a stored time may lie behind the true one: Matroska and FLV
# round to milliseconds.
_MOST_ROUNDING = Fraction(1, 2000)
# A rate is variable if steps differ by more than that rounding explains.
_STEP_SLACK = 0.0025


class Timeline:
    """Display times of all frames of a video, in order of display.

    Seconds count from the start of the presentation as players show it: from
    the zero of the file in MP4, MOV and Matroska (edit lists applied), from
    the beginning of the earliest stream elsewhere. A frame is on display until
    the next one is.

    Args:
        ticks (Sequence[int]): Display times in units of ``time_base``,
            ascending; equal ones are allowed.
        time_base (Fraction): Seconds of a tick.
        end (int): Tick at which the last frame goes off display.

    Example:
        >>> timeline = Timeline([0, 40, 1000], Fraction(1, 1000), 1040)
        >>> timeline.shown_at(0.5), timeline.duration
        (1, 1.04)
    """

    def __init__(
        self, ticks: Sequence[int], time_base: Fraction, end: int
    ) -> None:
        self.ticks = list(ticks)
        self.time_base = Fraction(time_base)
        self.end = end

    @classmethod
    def at_rate(cls, fps: Fraction | float, num_frames: int) -> Timeline:
        """Make the timeline of a constant rate.

        Args:
            fps (Fraction | float): Frames a second.
            num_frames (int): Number of frames.

        Returns:
            Timeline: Its first frame is shown at 0.

        Raises:
            ValueError: If the rate is not positive.
        """
        if fps <= 0:
            raise ValueError(
                f'Expected a positive frame rate, but got {float(fps):g}. '
                'Encode the video again.'
            )
        return cls(range(num_frames), 1 / Fraction(fps), num_frames)

    def __len__(self) -> int:
        return len(self.ticks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeline) and (
            (self.ticks, self.time_base, self.end)
            == (other.ticks, other.time_base, other.end)
        )

    __hash__ = None  # type: ignore[assignment]

    def seconds(self, index: int) -> float:
        """Say when a frame is shown.

        Args:
            index (int): Its number.

        Returns:
            float: Seconds.
        """
        return float(self.ticks[index] * self.time_base)

    def shown_at(self, seconds: Fraction | float) -> int | None:
        """Say which frame is on display.

        Args:
            seconds (Fraction | float): When. Half a tick, at most half a
                millisecond, is granted to the rounding of stored times.

        Returns:
            int | None: Number of the frame; None before the first one. Behind
            the end it is the last one.
        """
        slack = min(self.time_base / 2, _MOST_ROUNDING)
        tick = (Fraction(seconds) + slack) / self.time_base
        number = bisect_right(self.ticks, tick)
        return number - 1 if number else None

    @property
    def begin(self) -> float:
        """float: Second at which the first frame is shown."""
        return self.seconds(0) if self.ticks else 0.0

    @property
    def duration(self) -> float:
        """float: Second at which the last frame goes off display."""
        return float(self.end * self.time_base)

    @property
    def is_variable(self) -> bool:
        """bool: Whether the steps between frames differ."""
        steps = {later - earlier for earlier, later in pairwise(self.ticks)}
        if not steps:
            return False
        return float((max(steps) - min(steps)) * self.time_base) > _STEP_SLACK


class Clock:
    """Turns time stamps of a stream into ticks from the presentation's start.

    A time that is missing, goes back or jumps too far (by over 10 seconds in
    formats whose clock may start anew, by over an hour elsewhere) counts as
    the nominal step behind the one before.

    Args:
        container (av.container.InputContainer): Open file.
        stream (av.VideoStream): One of its streams.
        fps (Fraction): Rate whose inverse is the nominal step; 0 if unknown.
        counts_from_zero (bool): Whether zero of the file is the start of the
            presentation; else the beginning of the earliest stream is.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        fps: Fraction,
        *,
        counts_from_zero: bool,
    ) -> None:
        self.time_base = Fraction(stream.time_base)
        rate = fps if fps > 0 else Fraction(25)
        self.nominal_step = max(1, round(1 / (rate * self.time_base)))
        jumps = int(container.format.flags) & _CLOCK_MAY_JUMP
        longest = _LONGEST_STEP_OF_BROADCASTS if jumps else _LONGEST_STEP
        self.longest_step = int(longest / self.time_base)
        self.zero = 0
        if not counts_from_zero and container.start_time is not None:
            begin = Fraction(container.start_time, 1_000_000)
            self.zero = round(begin / self.time_base)

    def ticks(self, stamps: Iterable[int | None]) -> Iterator[int]:
        """Put the time stamps of frames in order of display right.

        Args:
            stamps (Iterable[int | None]): Of the frames, in units of the time
                base of the stream; None where missing.

        Yields:
            int: Ticks from the start of the presentation, ascending.
        """
        tick = 0
        before: int | None = None
        for number, stamp in enumerate(stamps):
            if number == 0:
                tick = 0 if stamp is None else stamp - self.zero
            elif stamp is None or before is None:
                tick += self.nominal_step
            else:
                step = stamp - before
                sound = 0 <= step <= self.longest_step
                tick += step if sound else self.nominal_step
            before = stamp if stamp is not None else before
            if stamp is None and before is not None:
                before += self.nominal_step
            yield tick

    def timeline(
        self,
        ticks: Sequence[int],
        last_duration: int | None,
        *,
        other_durations: Sequence[int] = (),
        stated_end: float = 0.0,
    ) -> Timeline:
        """Complete a timeline by the end of its last frame.

        MP4 stores steps of decoding times. Where frames are reordered, these
        are not how long each is shown, but their sum, the end that the header
        states, is right as a rule.

        Args:
            ticks (Sequence[int]): Of all frames.
            last_duration (int | None): Ticks for which the last one is shown,
                if the file says so.
            other_durations (Sequence[int]): Of packets in a file that
                reorders them; if given, ``last_duration`` is not believed.
            stated_end (float): Seconds at which the video ends by its header;
                0 if it does not say. Not believed if that makes the last
                frame longer than any other.

        Returns:
            Timeline: Of the video.
        """
        if not ticks:
            return Timeline([], self.time_base, 0)
        step = ticks[-1] - ticks[-2] if len(ticks) > 1 else 0
        longest = max([step, last_duration or 0, *other_durations])
        stated = round(Fraction(stated_end) / self.time_base) - ticks[-1]
        if other_durations:
            last_duration = stated if 0 < stated <= longest + 1 else None
        if not last_duration or not 0 < last_duration <= self.longest_step:
            last_duration = step or self.nominal_step
        return Timeline(ticks, self.time_base, ticks[-1] + last_duration)

    def in_display_order(
        self, stamps: Sequence[tuple[int | None, int | None]]
    ) -> list[int | None]:
        """Put the times of packets into the order of display.

        Args:
            stamps (Sequence[tuple[int | None, int | None]]): Times of display
                and of decoding of each packet, in the order of the file.

        Returns:
            list[int | None]: Times of display; those behind a jump of the
            clock come behind those before it.
        """
        ordered: list[int | None] = []
        piece: list[int] = []
        before: int | None = None
        for display, decoding in stamps:
            if before is not None and decoding is not None:
                step = decoding - before
                if not 0 <= step <= self.longest_step:
                    ordered += sorted(piece)
                    piece = []
            if decoding is not None:
                before = decoding
            time = display if display is not None else decoding
            if time is None:
                ordered += [*sorted(piece), None]
                piece = []
            else:
                piece.append(time)
        return ordered + sorted(piece)
