from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaglenet_mm.datasets.transforms import (
    clean_frames,
    release_frames,
    release_seeks,
    select_frames,
)
from eaglenet_mm.datasets.video_readers import Timeline


def test_release_cuts_the_frame_rate() -> None:
    # 29.97 becomes 29: after 10 s the frame is that of second 9.68
    seeks = release_seeks(Fraction(30000, 1001), 300)
    assert seeks == [29 * second for second in range(12)]


def test_release_includes_the_last_second() -> None:
    assert release_seeks(25, 10_000, start=0, end=31) == [
        25 * second for second in range(32)
    ]
    assert release_seeks(25, 100, start=2, end=3) == [50, 75]
    assert release_seeks(25, 100, start=10, end=20) == []


def test_release_with_more_frames_a_second() -> None:
    assert release_seeks(7, 7, fps=3) == [0, 2, 4, 7, 9, 11]
    assert release_seeks(3, 3, fps=0) == [0, 1, 2, 3, 4, 5]


def test_release_with_fractions_of_seconds() -> None:
    assert release_seeks(10, 1000, start=0.25, end=2.5) == [2, 12, 22]
    assert release_seeks(10, 1000, start=0.25, end=2.25) == [2, 12, 22]


@pytest.mark.parametrize('video_fps', [0, 0.5, Fraction(99, 100)])
def test_release_needs_a_frame_a_second(video_fps: float) -> None:
    with pytest.raises(ValueError, match=f'got {float(video_fps):g}'):
        release_seeks(video_fps, 10)


def test_release_cannot_invent_frames() -> None:
    with pytest.raises(ValueError, match=r'4 frames per second .* with 3'):
        release_seeks(3.9, 10, fps=4)


def test_release_stops_at_the_first_failed_read() -> None:
    seeks = [0, 30, 60, 90]
    assert release_frames(seeks, frame_count=100, decodable=61) == [0, 30, 60]
    # positions beyond the header's count are moved back to it
    assert release_frames(seeks, frame_count=50, decodable=61) == [
        0,
        30,
        50,
        50,
    ]
    assert release_frames(seeks, frame_count=0, decodable=0) == []


def test_clean_does_not_drift() -> None:
    # two hours at 29.97: the frame on display at each full second
    rate = Fraction(30000, 1001)
    frames = clean_frames(Timeline.at_rate(rate, 215_784))
    assert len(frames) == 7200
    for second in (0, 1, 10, 3600, 7199):
        assert frames[second] == int((second + Fraction(1, 2000)) * rate)


def test_clean_stays_in_its_range() -> None:
    timeline = Timeline.at_rate(10, 100)
    assert clean_frames(timeline, start=2, end=4) == [20, 30]
    assert clean_frames(timeline, start=2, end=4.1) == [20, 30, 40]
    assert clean_frames(timeline, start=9) == [90]
    assert clean_frames(timeline, start=9, end=900) == [90]
    assert clean_frames(timeline, start=10) == []
    assert clean_frames(timeline, start=3, end=3) == []
    assert clean_frames(Timeline.at_rate(10, 0)) == []
    # what is on display at 0.4 s was shown before
    assert clean_frames(Timeline.at_rate(3, 9), start=0.4, end=1.4) == [1]


def test_clean_below_one_frame_a_second() -> None:
    assert clean_frames(Timeline.at_rate(0.5, 4)) == [0, 1, 2, 3]


def test_clean_with_another_rate() -> None:
    assert clean_frames(Timeline.at_rate(10, 20), fps=2.5) == [
        *(0, 4, 8, 12, 16)
    ]
    assert clean_frames(Timeline.at_rate(10, 100), fps=0.25) == [0, 40, 80]


def test_clean_before_the_video_begins() -> None:
    # frames at 30.5, 31.5, ...: nothing is shown at 30, the first is next
    late = Timeline([305, 315, 325], Fraction(1, 10), 335)
    assert clean_frames(late) == [0, 1, 2]
    assert clean_frames(late, start=0, end=30) == []
    assert clean_frames(late, start=0, end=30.5) == []
    assert clean_frames(late, start=30, end=32) == [0]
    assert clean_frames(late, start=31, end=33) == [0, 1]
    # a first frame a little behind zero is that of second 0
    small = Timeline([1, 11, 21], Fraction(1, 10), 31)
    assert clean_frames(small, end=2) == [0]
    assert clean_frames(small, end=3) == [0, 1]


@given(
    steps=st.lists(st.integers(0, 4000), max_size=60),
    begin=st.integers(0, 5000),
    start=st.integers(0, 20),
    length=st.integers(1, 30),
    fps=st.sampled_from([0.5, 1, 2, 3]),
)
def test_clean_frames_are_what_a_viewer_sees(
    steps: list[int], begin: int, start: int, length: int, fps: float
) -> None:
    """Against all display times, one by one."""
    times = list(accumulate(steps, initial=begin))
    timeline = Timeline(times, Fraction(1, 100_000), times[-1] + 1000)
    end = start + length
    got = clean_frames(timeline, start=start, end=end, fps=fps)
    expected = []
    point = Fraction(start)
    while point < min(end, Fraction(times[-1] + 1000, 100_000)):
        seen = [
            number
            for number, time in enumerate(times)
            # half a tick for rounding
            if Fraction(2 * time - 1, 200_000) <= point
        ]
        following = min(point + 1 / Fraction(fps), end)
        if not seen and Fraction(times[0], 100_000) < following:
            seen = [0]
        expected += seen[-1:]
        point += 1 / Fraction(fps)
    assert got == sorted(set(expected))


@pytest.mark.parametrize('selection', ['uniform', 'head', 'tail'])
def test_few_frames_are_all_kept(selection: str) -> None:
    assert select_frames([3, 5], 2, selection=selection) == [3, 5]
    assert select_frames([], 2, selection=selection) == []


def test_selections() -> None:
    frames = list(range(100, 113))
    assert select_frames(frames, 4) == [100, 104, 108, 112]
    # cut, not rounded: 14 -> 4 has 4.33 and 8.67
    assert select_frames(range(14), 4) == [0, 4, 8, 13]
    assert select_frames(frames, 3, selection='head') == [100, 101, 102]
    assert select_frames(frames, 3, selection='tail') == [110, 111, 112]
    assert select_frames(frames, 1) == [100]
