"""The makers against FFmpeg, which decodes in order."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.datasets.video_readers import made_videos as make
from tests.datasets.video_readers.backends import few


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


@pytest.mark.parametrize('number', [0, 1, 2730, 4095])
def test_numbers(number: int) -> None:
    image = make.draw_frame(number)
    assert make.read_number(image) == number
    assert make.read_number(image[::2, ::2]) == number
    assert make.read_number(np.rot90(image[:, ::-1])) == number
    assert make.read_corners(image) == make.CORNERS
    assert make.read_corners(np.rot90(image)) == (
        'green', 'white', 'red', 'blue',
    )  # fmt: skip
    with pytest.raises(ValueError, match='levels'):
        make.read_number(image // 3 + 85)


@pytest.mark.parametrize(
    'case',
    few(
        [
            ('a.mkv', 'libx264'),
            ('a.webm', 'libvpx'),
            ('a.mp4', 'libx264'),
            ('a.mp4', 'libx265'),
            ('a.webm', 'libvpx-vp9'),
            ('a.mp4', 'libsvtav1'),
        ]
    ),
)
def test_variable_rate(tmp_path: Path, case: tuple[str, str]) -> None:
    name, codec = case
    assert_right(make.fast_then_slow(tmp_path / name, codec=codec))
    assert_right(make.slow_then_fast(tmp_path / name, codec=codec))


def test_b_frames(tmp_path: Path) -> None:
    assert_right(make.fast_then_slow(tmp_path / 'a.mp4', options={'bf': '3'}))


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_late_start(tmp_path: Path, name: str) -> None:
    video = make.late_start(tmp_path / name)
    assert video.times[0] == 30
    assert_right(video)


def test_skipped_start(tmp_path: Path) -> None:
    video = make.skipped_start(tmp_path / 'a.mp4')
    assert video.numbers[0] == 13
    assert len(video.times) == 27
    assert_right(video)


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


def test_cut_off(tmp_path: Path) -> None:
    video = make.cut_off(make.write_constant(tmp_path / 'a.mkv'))
    assert 5 < len(video.times) < 35
    assert_right(video)


@pytest.mark.parametrize('name', make.MATRICES)
def test_matrix(tmp_path: Path, name: str) -> None:
    video = make.write_constant(tmp_path / 'a.mp4', count=2)
    matrix = make.MATRICES[name]
    video = make.turned(video, matrix)
    with av.open(str(video.path)) as container:
        frame = next(container.decode(video=0))
        (data,) = [
            data
            for data in frame.side_data
            if data.type.name == 'DISPLAYMATRIX'
        ] or [None]
    if name != 'none':
        values = np.frombuffer(bytes(data), dtype=np.int32)
        assert tuple(values[[0, 1, 3, 4]] / 65536) == matrix
    # the matrix applied to every pixel
    image = make.draw_frame(0, (24, 16))
    shown = {}
    a, b, c, d = matrix
    for y in range(16):
        for x in range(24):
            shown[a * x + c * y, b * x + d * y] = image[y, x]
    left, top = (min(place[axis] for place in shown) for axis in (0, 1))
    width, height = (24, 16) if a else (16, 24)
    turned = np.array(
        [
            [shown[left + x, top + y] for x in range(width)]
            for y in range(height)
        ]
    )
    assert make.read_corners(turned) == video.corners


def test_angles_count_as_the_nearest_quarter() -> None:
    for degrees in (0, 10, -10, 80, 100, 170, 260):
        nearest = round(degrees / 90) * 90
        assert make.displayed_corners(
            make.turn_by_degrees(degrees)
        ) == make.displayed_corners(make.turn_by_degrees(nearest))
    assert make.displayed_corners(make.turn_by_degrees(90)) == (
        'blue', 'red', 'white', 'green',
    )  # fmt: skip


def test_sei_orientation(tmp_path: Path) -> None:
    video = make.sei_orientation(tmp_path / 'a.mp4', 90)
    with av.open(str(video.path)) as container:
        turns = [frame.rotation for frame in container.decode(video=0)]
    assert 90 in turns
    assert video.corners == ('green', 'white', 'red', 'blue')


def test_wide_pixels(tmp_path: Path) -> None:
    video = make.wide_pixels(tmp_path / 'a.mp4')
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == 2
    assert_right(video)


def test_shown_at(tmp_path: Path) -> None:
    video = make.late_start(tmp_path / 'a.mkv', delay=1, count=3)
    seen = [video.shown_at(time) for time in (0.9, 1, 1.15, 1.25, 1.3)]
    assert seen == [None, 0, 1, 2, None]
