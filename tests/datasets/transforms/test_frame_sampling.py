from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaglenet_mm.datasets.transforms import (
    clean_frames,
    release_frames,
    release_seeks,
    select_frames,
)


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
    with pytest.raises(ValueError, match=r'4 frames a second .* with 3'):
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
    # two hours at 29.97: the frame nearest to each full second
    rate = Fraction(30000, 1001)
    frames = clean_frames(rate, 215_784)
    assert len(frames) == 7200
    for second in (0, 1, 10, 3600, 7199):
        assert abs(frames[second] / rate - second) <= 1 / (2 * rate)


def test_clean_stays_in_its_range() -> None:
    assert clean_frames(10, 100, start=2, end=4) == [20, 30]
    assert clean_frames(10, 100, start=2, end=4.1) == [20, 30, 40]
    assert clean_frames(10, 100, start=9) == [90]
    assert clean_frames(10, 100, start=10) == []
    assert clean_frames(10, 0) == []
    # the frame nearest to 0.4 s lies before it, and 1.4 s is outside
    assert clean_frames(3, 9, start=0.4, end=1.4) == [2]


def test_clean_below_one_frame_a_second() -> None:
    assert clean_frames(0.5, 4) == [0, 1, 2, 3]


def test_clean_with_another_rate() -> None:
    assert clean_frames(10, 20, fps=2.5) == [0, 4, 8, 12, 16]
    assert clean_frames(10, 100, fps=0.25) == [0, 40, 80]


def test_clean_needs_a_rate() -> None:
    with pytest.raises(ValueError, match='positive frame rate, but got 0'):
        clean_frames(0, 10)


@given(
    num=st.integers(1, 60_000),
    den=st.integers(1, 1001),
    frames=st.integers(0, 400),
    start=st.integers(0, 20),
    length=st.integers(1, 30),
    fps=st.sampled_from([0.5, 1, 2, 3]),
)
def test_clean_frames_are_in_range_and_increase(
    num: int, den: int, frames: int, start: int, length: int, fps: float
) -> None:
    rate, end = Fraction(num, den), start + length
    got = clean_frames(rate, frames, start=start, end=end, fps=fps)
    assert got == sorted(set(got))
    for frame in got:
        assert 0 <= frame < frames
        assert start <= frame / rate < end
    inside = [f for f in range(frames) if start <= f / rate < end]
    assert bool(got) == bool(inside)


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
