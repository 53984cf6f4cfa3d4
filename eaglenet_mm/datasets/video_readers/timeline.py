"""Display times of the frames of a video."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

#: Seconds; longer steps are errors in the time stamps. The first is for
#: formats whose clock may restart (MPEG-TS, MPEG-PS).
_LONGEST_STEP_OF_BROADCASTS = 10
_LONGEST_STEP = 3600
#: Largest rounding error of a stored time in seconds: Matroska and FLV round
#: to milliseconds.
MOST_ROUNDING = Fraction(1, 2000)
# The rate is variable if steps differ by more than rounding can explain.
_STEP_SLACK = 0.0025


class Timeline:
    """Display times of all frames of a video, in display order.

    Seconds count from the start of the presentation as in players: from time
    zero of the file in MP4, MOV and Matroska (after edit lists), from the
    start of the earliest stream elsewhere. A frame is on display until the
    next one.

    Args:
        ticks (Sequence[int]): Display times in units of ``time_base``,
            non-decreasing.
        time_base (Fraction): Seconds per tick.
        end (int): Tick at which the display of the last frame ends.

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
        """Make the timeline of a constant rate, starting at 0.

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
        """Return the display time of a frame in seconds."""
        return float(self.ticks[index] * self.time_base)

    def shown_at(self, seconds: Fraction | float) -> int | None:
        """Return the number of the frame on display; None before the first.

        After the end, this is the last frame. Half a tick, at most half a
        millisecond, is allowed for rounding of stored times.
        """
        slack = min(self.time_base / 2, MOST_ROUNDING)
        tick = (Fraction(seconds) + slack) / self.time_base
        number = bisect_right(self.ticks, tick)
        return number - 1 if number else None

    @property
    def begin(self) -> float:
        """float: Display time of the first frame, in seconds."""
        return self.seconds(0) if self.ticks else 0.0

    @property
    def duration(self) -> float:
        """float: End of the display of the last frame, in seconds."""
        return float(self.end * self.time_base)

    @property
    def longest_step(self) -> float:
        """float: Longest time between two frames, in seconds."""
        steps = (later - earlier for earlier, later in pairwise(self.ticks))
        return float(max(steps, default=0) * self.time_base)

    @property
    def is_variable(self) -> bool:
        """bool: Whether frame intervals differ."""
        steps = {later - earlier for earlier, later in pairwise(self.ticks)}
        if not steps:
            return False
        return float((max(steps) - min(steps)) * self.time_base) > _STEP_SLACK


class Clock:
    """Conversion of time stamps to ticks since the start of presentation.

    A missing, decreasing or too large time stamp is replaced by the previous
    one plus a nominal step (of ``fps``, or 25 frames per second). A single
    wrong stamp does not shift later ones. The presentation starts at stamp
    ``zero``. Steps are too large above 10 seconds if the clock of the format
    may restart (``may_jump``), otherwise above an hour, unless other streams
    such as audio (``other_times``, ascending) continue meanwhile.
    """

    def __init__(
        self,
        time_base: Fraction,
        fps: Fraction,
        *,
        zero: int = 0,
        may_jump: bool = False,
        other_times: Sequence[int] = (),
    ) -> None:
        self.time_base = Fraction(time_base)
        rate = fps if fps > 0 else Fraction(25)
        self.nominal_step = max(1, round(1 / (rate * self.time_base)))
        longest = _LONGEST_STEP_OF_BROADCASTS if may_jump else _LONGEST_STEP
        self.longest_step = int(longest / self.time_base)
        self.zero = zero
        self.may_jump = may_jump
        self._other_times = other_times

    def ticks(self, stamps: Iterable[int | None]) -> Iterator[int]:
        """Convert the stamps of frames, in display order, to ticks."""
        tick = 0
        offset, earlier = -self.zero, None
        is_first, was_missing = True, False
        for stamp in self._without_outliers(stamps):
            if stamp is None:
                tick += 0 if is_first else self.nominal_step
            elif is_first:
                tick = stamp + offset
            else:
                if earlier is not None and self._is_sound(
                    stamp + earlier - tick
                ):
                    offset, earlier = earlier, None  # a single wrong stamp
                step = stamp + offset - tick
                if was_missing and -self.nominal_step <= step < 0:
                    step = 0  # the actual step is below the nominal one
                if self._is_sound(step) or self._is_pause(stamp, step):
                    tick += step
                else:
                    tick += self.nominal_step
                    offset, earlier = tick - stamp, offset
            is_first, was_missing = False, stamp is None
            yield tick

    def pair(self, frames: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Pair PyAV frames with their ticks; buffers at most two."""
        waiting: deque[Any] = deque()

        def stamps() -> Iterator[int | None]:
            for frame in frames:
                waiting.append(frame)
                yield frame.pts

        for tick in self.ticks(stamps()):
            yield tick, waiting.popleft()

    def _without_outliers(
        self, stamps: Iterable[int | None]
    ) -> Iterator[int | None]:
        """Replace by None each stamp that exceeds a valid next one."""
        before: int | None = None
        ahead: int | None = None
        for stamp in stamps:
            if ahead is not None:
                assert before is not None
                is_wrong = stamp is not None and before <= stamp < ahead
                yield None if is_wrong else ahead
                before = before if is_wrong else ahead
                ahead = None
            if (
                before is not None
                and stamp is not None
                and stamp - before > 2 * self.nominal_step
            ):
                ahead = stamp  # the next frame decides
                continue
            yield stamp
            before = before if stamp is None else stamp
        if ahead is not None:
            yield ahead

    def _is_sound(self, step: int) -> bool:
        return 0 <= step <= self.longest_step

    def _is_pause(self, stamp: int, step: int) -> bool:
        """Whether other streams continue during a long step."""
        if step < 0 or not self._other_times:
            return False
        begin, end = (
            bisect_right(self._other_times, time)
            for time in (stamp - step, stamp)
        )
        inside = [stamp - step, *self._other_times[begin:end], stamp]
        return all(self._is_sound(b - a) for a, b in pairwise(inside))

    def timeline(
        self,
        ticks: Sequence[int],
        last_duration: int | None,
        *,
        other_durations: Sequence[int] = (),
        stated_end: float = 0.0,
    ) -> Timeline:
        """Build a timeline, deriving the end of the last frame.

        MP4 stores steps between decoding times. If frames are reordered
        (``other_durations`` are the packets' durations), these are not display
        durations. Their sum, the ``stated_end`` in seconds, is usually right,
        unless it makes the last frame longer than all others.
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
        """Sort (display, decoding) times of packets by display time.

        Packets after a jump of the clock stay after those before it.
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
