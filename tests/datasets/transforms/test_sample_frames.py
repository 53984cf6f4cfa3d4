from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from eaglenet_mm.datasets import SampleFrames
from eaglenet_mm.datasets.video_readers import Timeline


def reader(**change: Any) -> SimpleNamespace:
    values = dict(
        path='x.mp4', fps=Fraction(10), num_frames=55, num_frames_reported=55
    )
    values.update(change)
    timeline = Timeline.at_rate(values['fps'], values['num_frames'])
    return SimpleNamespace(**values, timeline=timeline)


def test_the_clock_of_the_file_decides() -> None:
    """10 frames at 10 a second, then one in five seconds."""
    uneven = reader(num_frames=14)
    ticks = [*range(10), 10, 60, 110, 160]
    uneven.timeline = Timeline(ticks, Fraction(1, 10), 210)
    item = dict(video_id='v', video_reader=uneven, start=5, end=17)
    clean = SampleFrames(9, mode='clean')(dict(item))
    assert clean['frame_indices'] == [10, 11, 12, 13]
    assert SampleFrames(9)(dict(item, start=0, end=1))['frame_indices'] == [
        *(0, 10)
    ]


def test_clean_needs_a_rate_or_times() -> None:
    with pytest.raises(ValueError, match='positive frame rate, but got 0'):
        SampleFrames(9, mode='clean').sample(0, 10, decodable=10)


def test_adds_the_frames() -> None:
    sampler = SampleFrames(3)
    results = sampler(dict(video_id='v', video_reader=reader()))
    assert results['frame_indices'] == [0, 20, 50]
    assert results['frame_sampler'] is sampler


def test_uses_the_times_of_the_item() -> None:
    item = dict(video_id='v', video_reader=reader(), start=1, end=3)
    assert SampleFrames(9)(dict(item))['frame_indices'] == [10, 20, 30]
    clean = SampleFrames(9, mode='clean')
    assert clean(dict(item))['frame_indices'] == [10, 20]


def test_trusts_what_can_be_decoded_alone() -> None:
    short = reader(num_frames=25)
    item = dict(video_id='v', video_reader=short)
    assert SampleFrames(9)(dict(item))['frame_indices'] == [0, 10, 20]
    clean = SampleFrames(9, mode='clean')
    assert clean(dict(item))['frame_indices'] == [0, 10, 20]


@pytest.mark.parametrize('mode', ['release', 'clean'])
def test_no_frame_in_the_range(mode: str) -> None:
    item = dict(video_id='v7', video_reader=reader(), start=8, end=9)
    with pytest.raises(
        ValueError, match=r"'v7' \(x\.mp4\): No frame .* 8 and 9 seconds"
    ):
        SampleFrames(9, mode=mode)(item)


@pytest.mark.parametrize('mode', ['release', 'clean'])
def test_no_frame_at_all(mode: str) -> None:
    empty = reader(num_frames=0, num_frames_reported=0)
    with pytest.raises(ValueError, match='video of 0 frames'):
        SampleFrames(9, mode=mode)(dict(video_id='v', video_reader=empty))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_frames=0), 'at least 1, but got 0'),
        (dict(num_frames=3, mode='exact'), "'exact' and 'uniform'"),
        (dict(num_frames=3, selection='random'), "'release' and 'random'"),
        (dict(num_frames=3, fps=1.5), "mode='release', but got 1.5"),
        (dict(num_frames=3, fps=-1), "mode='release', but got -1"),
        (dict(num_frames=3, fps=0, mode='clean'), "mode='clean', but got 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleFrames(**arguments)


def test_repr() -> None:
    assert repr(SampleFrames(12)) == (
        "SampleFrames(num_frames=12, fps=1, mode='release', "
        "selection='uniform')"
    )
