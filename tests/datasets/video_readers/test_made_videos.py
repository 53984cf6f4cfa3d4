"""The makers against FFmpeg, which decodes in order."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.datasets.video_readers import made_videos as make


def decode(video: make.MadeVideo) -> tuple[list[Fraction], list[int]]:
    """Times in seconds as FFmpeg gives them, and numbers."""
    with av.open(str(video.path)) as container:
        frames = list(container.decode(video=0))
    times = [
        None if frame.pts is None else frame.pts * frame.time_base
        for frame in frames
    ]
    images = [frame.to_ndarray(format='rgb24') for frame in frames]
    return times, make.read_numbers(images)


def assert_right(video: make.MadeVideo, start: Fraction | int = 0) -> None:
    times, numbers = decode(video)
    assert tuple(numbers) == video.numbers
    assert len(times) == len(video.times)
    for seen, right in zip(times, video.times, strict=True):
        assert abs(seen - start - right) <= video.tick


@pytest.mark.parametrize('starts', [(0, 0), (0, 3600), (7200, 0)])
def test_joined_ts(tmp_path: Path, starts: tuple[int, int]) -> None:
    video = make.joined_ts(tmp_path / 'a.ts', starts, count=20)
    times, numbers = decode(video)
    assert tuple(numbers) == video.numbers == tuple(range(40))
    assert make.by_steps(times, Fraction(1, 10))[:20] == video.times[:20]
    jump = times[20] - times[19]
    # FFmpeg takes a step back of more than a minute for a clock that wrapped
    assert jump < 0 or jump > 10


@pytest.mark.parametrize(
    'maker', [make.repeating_stamps, make.stamps_that_go_back]
)
def test_odd_stamps(tmp_path: Path, maker: Callable) -> None:
    video = maker(tmp_path / 'a.mkv')
    times, numbers = decode(video)
    assert tuple(numbers) == video.numbers
    assert make.by_steps(times, Fraction(1, 10)) == video.times
    assert times != list(video.times) or maker is make.repeating_stamps


def test_missing_stamps(tmp_path: Path) -> None:
    video = make.missing_stamps_ts(tmp_path / 'a.ts')
    with av.open(str(video.path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert len(packets) == 40
    _, numbers = decode(video)
    assert tuple(numbers) == video.numbers


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
@pytest.mark.parametrize('seconds', [0, 0.8, 36000])
def test_header_duration(tmp_path: Path, name: str, seconds: float) -> None:
    video = make.write_constant(tmp_path / name)
    make.with_header_duration(video, seconds)
    with av.open(str(video.path)) as container:
        stated = (container.duration or 0) / 1e6
    # FFmpeg takes the shorter of the header's and the frames' in MP4
    most = 4 if name == 'a.mp4' else math.inf
    assert stated == pytest.approx(min(seconds, most))
    assert_right(video)
