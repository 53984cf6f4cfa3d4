"""The clips whose time, turn or pixel shape is easy to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from eaglenet_mm.datasets import DecodeFrames, OpenVideo, SampleFrames
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.search.moment_reading import MomentReader
from tests.datasets.video_readers.backends import few, usable
from tests.datasets.video_readers.made_videos import CORNERS, read_corners

#: When frame n is shown, and how many there are.
TIMES: dict[str, tuple[Callable[[int], float], int, float]] = {
    'vfr_fast_then_slow.mp4': (
        lambda n: n / 30 if n < 300 else 10 + n - 300,
        330,
        40,
    ),
    'vfr_fast_then_slow.hevc.mp4': (
        lambda n: n / 30 if n < 300 else 10 + n - 300,
        330,
        40,
    ),
    'vfr_slow_then_fast.vp8.webm': (
        lambda n: n if n < 30 else 30 + (n - 30) / 30,
        330,
        40,
    ),
    'latevideo.mp4': (lambda n: 30 + n / 10, 400, 70),
    'dur_short.mkv': (lambda n: n / 10, 400, 40),
    'joined_back.ts': (lambda n: n / 10, 200, 20),
    'plain.mp4': (lambda n: n / 10, 40, 4),
}
BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not usable(name), reason=f'needs {name}'),
    )
    for name in ('pyav', 'opencv', 'decord', 'torchcodec')
]


@pytest.fixture
def folder(shared_dir: Path) -> Path:
    folder = shared_dir / 'data' / 'videos_time'
    if not folder.is_dir():
        pytest.skip('the clips are not on this machine')
    return folder


@pytest.mark.parametrize('backend', few(BACKENDS))
@pytest.mark.parametrize('name', TIMES)
def test_times(folder: Path, name: str, backend: str) -> None:
    at, count, end = TIMES[name]
    try:
        with open_video(str(folder / name), backend=backend) as reader:
            timeline = reader.timeline
            found = [timeline.seconds(n) for n in range(len(timeline))]
            shown = [timeline.shown_at(at(n)) for n in range(count)]
    except VideoReadError:
        assert backend in ('decord', 'torchcodec')
        return
    # one file has a few stamps that are a frame early
    assert found == pytest.approx([at(n) for n in range(count)], abs=0.034)
    assert all(s is None or abs(n - s) <= 1 for n, s in enumerate(shown))
    assert timeline.duration == pytest.approx(end, abs=2e-3)


def test_a_real_variable_rate(folder: Path) -> None:
    with open_video(str(folder / 'mb_annex-b-avc.mkv')) as reader:
        assert reader.timeline.duration == pytest.approx(35.2, abs=0.05)
        assert reader.has_variable_rate


def test_segments_lie_where_their_frames_are(folder: Path) -> None:
    reader = MomentReader(
        [
            dict(type='OpenVideo'),
            dict(type='SampleFrames', num_frames=12),
            dict(
                type='DecodeFrames',
                resize=dict(type='ResizeCenterCrop', size=32),
            ),
            dict(type='PackRetrievalInputs'),
        ],
        segment=10,
        num_workers=0,
    )
    paths = [str(folder / name) for name in TIMES]
    ends: dict[str, float] = {}
    for path, found, _ in reader.read(paths):
        assert found.error == ''
        for moment in found.moments:
            start, end = moment.span
            assert all(start <= time < end for time in moment.times)
            ends[Path(path).name] = end
    for name, (_, _, end) in TIMES.items():
        assert ends[name] == pytest.approx(end, abs=2e-3)


@pytest.mark.parametrize(
    ('name', 'corners'),
    [
        ('plain.mp4', CORNERS),
        ('deg_10.mp4', CORNERS),
        ('matrix_hflip.mp4', ('green', 'red', 'white', 'blue')),
        ('matrix_vflip.mp4', ('blue', 'white', 'red', 'green')),
    ],
)
def test_orientation(
    folder: Path, name: str, corners: tuple[str, ...]
) -> None:
    item = OpenVideo()(dict(video_id='v', video=str(folder / name)))
    frames = DecodeFrames()(SampleFrames(4, mode='clean')(item))['frames']
    assert {read_corners(frame) for frame in frames} == {corners}


def test_one_orientation_for_a_file(folder: Path) -> None:
    """Whichever frames the stream marks."""
    with open_video(str(folder / 'sei90.mp4')) as reader:
        whole = reader.get_batch(range(40))
        parts = [reader.get_batch([n])[0] for n in (0, 17, 39)]
    assert whole.shape[1] > whole.shape[2]
    np.testing.assert_array_equal(whole[[0, 17, 39]], parts)


@pytest.mark.parametrize('name', ['sar2.mp4', 'mb_sar_2x1.mp4'])
def test_shape_of_pixels(folder: Path, name: str) -> None:
    with open_video(str(folder / name)) as reader:
        reader.get_batch([0])
        assert reader.pixel_aspect == Fraction(2)
