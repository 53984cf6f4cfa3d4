"""Time stamps of every sort become times on one clock."""

from __future__ import annotations

from fractions import Fraction

import pytest

from eaglenet_mm.datasets.video_readers.timeline import Clock, Timeline

TENTH = Fraction(1, 10)


def ticks(stamps: list[int | None], **options: object) -> list[int]:
    return list(Clock(TENTH, Fraction(10), **options).ticks(stamps))


def test_shown_at() -> None:
    timeline = Timeline([5, 5, 8, 30], TENTH, 31)
    assert [timeline.shown_at(t / 10) for t in (4, 5, 7, 8, 29, 30, 99)] == [
        *(None, 1, 1, 2, 2, 3, 3)
    ]
    assert (timeline.begin, timeline.duration) == (0.5, 3.1)
    assert timeline.longest_step == pytest.approx(2.2)
    assert timeline.is_variable
    assert not Timeline.at_rate(Fraction(30000, 1001), 99).is_variable
    assert Timeline([], TENTH, 0).shown_at(1) is None


def test_rounding_of_milliseconds_is_granted() -> None:
    thirds = [round(1000 * n / 30) for n in range(60)]
    timeline = Timeline(thirds, Fraction(1, 1000), 2000)
    assert timeline.shown_at(Fraction(2, 3)) == 20  # stored as 0.667


def test_sound_times_stay() -> None:
    assert ticks([0, 1, 5, 5, 90]) == [0, 1, 5, 5, 90]
    assert ticks([40, 41], zero=30) == [10, 11]
    assert ticks([]) == []


def test_missing_times() -> None:
    assert ticks([None, None, 2, None, 4]) == [0, 1, 2, 3, 4]
    # steps of a file may be shorter than its nominal one
    clock = Clock(TENTH, Fraction(2))
    assert list(clock.ticks([0, None, 4, 6])) == [0, 5, 5, 6]


@pytest.mark.parametrize(
    ('may_jump', 'jump', 'is_jump'),
    [
        (True, 99, False),
        (True, 101, True),
        (False, 101, False),
        (False, 35_999, False),
        (False, 36_001, True),
    ],
)
def test_what_is_too_far(may_jump: bool, jump: int, is_jump: bool) -> None:
    stamps = [0, 1, 1 + jump, 2 + jump]
    right = [0, 1, 2, 3] if is_jump else stamps
    assert ticks(stamps, may_jump=may_jump) == right


def test_clocks_that_start_anew() -> None:
    joined = [*range(20), *range(20), *range(700, 720)]
    assert ticks(joined, may_jump=True) == list(range(60))
    # a little back is a new start too
    assert ticks([*range(20), *range(16, 30)]) == list(range(34))


def test_one_wrong_stamp_moves_no_other() -> None:
    """Forward, back, and at the end."""
    assert ticks([0, 1, 97, 3, 4]) == [0, 1, 2, 3, 4]
    assert ticks([10, 107, 11, 12, 13]) == [10, 11, 11, 12, 13]
    assert ticks([0, 5, 6, 3, 8, 9]) == [0, 5, 6, 7, 8, 9]
    assert ticks([0, 1, 97]) == [0, 1, 97]
    assert ticks([0, 1, 97, None, 3, 4]) == [0, 1, 97, 98, 99, 100]


def test_a_pause_in_which_sound_goes_on() -> None:
    stamps = [0, 1, 180, 181]
    sound = list(range(0, 200, 3))
    assert ticks(stamps, may_jump=True, other_times=sound) == stamps
    # sound that jumps as well
    jumping = [*range(0, 3), *range(180, 190)]
    assert ticks(stamps, may_jump=True, other_times=jumping) == [0, 1, 2, 3]


def test_the_end_of_the_last_frame() -> None:
    clock = Clock(TENTH, Fraction(10))
    assert clock.timeline([0, 4], 2).end == 6
    assert clock.timeline([0, 4], None).end == 8
    assert clock.timeline([3], None).end == 4
    # of reordered packets, the end that the header states is believed
    reordered = dict(other_durations=[1, 7, 4])
    assert clock.timeline([0, 4], 7, **reordered, stated_end=0.5).end == 5
    assert clock.timeline([0, 4], 7, **reordered, stated_end=99).end == 8
    assert clock.timeline([0, 4], 7, **reordered).end == 8


def test_frames_keep_their_ticks() -> None:
    class Frame:
        def __init__(self, pts: int | None) -> None:
            self.pts = pts

    frames = [Frame(pts) for pts in (0, 50, 100, 51, 52)]
    pairs = list(Clock(TENTH, Fraction(10)).pair(frames))
    assert [frame for _, frame in pairs] == frames
    assert [tick for tick, _ in pairs] == [0, 50, 51, 51, 52]
