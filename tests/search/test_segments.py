"""How videos are cut: windows that may overlap, and shots."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eaglenet_mm.datasets.transforms import (
    DecodeFrames,
    OpenVideo,
    SampleFrames,
)
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.datasets.windows import SampleWindows
from eaglenet_mm.search import segments
from eaglenet_mm.search.moment_reading import MomentReader
from eaglenet_mm.search.segments import (
    check_segment,
    cut_segments,
    find_shots,
    make_detector,
    parse_segment,
)
from tests.datasets.video_readers import made_videos as made
from tests.search.joined_moments import join

PIPELINE = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=12),
    dict(type='DecodeFrames'),
    dict(type='PackRetrievalInputs'),
]


def reader(duration: float, begin: float = 0.0) -> Any:
    timeline = SimpleNamespace(duration=duration, begin=begin)
    return SimpleNamespace(timeline=timeline)


@pytest.mark.parametrize(
    ('duration', 'segment', 'expected'),
    [
        (24, 10, [(0, 10), (10, 24)]),
        (26, 10, [(0, 10), (10, 20), (20, 26)]),
        (3, 10, [(0, 3)]),
        (20, 10, [(0, 10), (10, 20)]),
    ],
)
def test_segments(
    duration: float, segment: float, expected: list[tuple[float, float]]
) -> None:
    assert cut_segments(reader(duration), segment) == expected


def test_segments_that_overlap() -> None:
    assert cut_segments(reader(5), 2, overlap=0.5) == [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
    ]
    assert cut_segments(reader(1), 2, overlap=0.5) == [(0, 1)]
    # all of the video is in some segment, whatever its length
    for duration in np.linspace(0.3, 9, 40):
        spans = cut_segments(reader(duration), 2, overlap=0.75)
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(duration)
        for (_, end), (start, _) in pairwise(spans):
            assert start < end


def test_neighbours_do_not_overlap_by_rounding() -> None:
    spans = cut_segments(reader(100), 0.1)
    assert all(end == start for (_, end), (start, _) in pairwise(spans))


def test_a_test_cuts_as_an_index_does_to_the_last_bit() -> None:
    sampler = SampleWindows(SampleFrames(num_frames=4), [0.1])
    assert sampler.spans(0.0, 50.0, 0.0) == cut_segments(reader(50), 0.1)


def test_segments_of_a_late_video() -> None:
    """A recording may begin at the time of day, in seconds since 1970."""
    late = 1.6e9
    assert cut_segments(reader(late + 26, late + 3), 10) == [
        (late, late + 10),
        (late + 10, late + 20),
        (late + 20, late + 26),
    ]
    assert cut_segments(reader(13, 12), 10) == [(0, 13)]
    overlapping = cut_segments(reader(late + 26, late + 3), 10, overlap=0.5)
    assert overlapping[0] == (late - 5, late + 5)


def read(path: Path, **options: Any) -> SimpleNamespace:
    moments = MomentReader(PIPELINE, num_workers=0, **options)
    return join(found for _, found, _ in moments.read([str(path)]))


def test_frames_of_overlapping_segments(tmp_path: Path) -> None:
    """Each one has the frames that it has alone."""
    video = made.write_constant(tmp_path / 'a.mp4', count=400)
    found = read(video.path, segment=4, overlap=0.5)
    assert not found.error
    assert found.spans[:3] == [(0, 4), (2, 6), (4, 8)]
    alone = read(video.path, segment=4)
    together = dict(zip(found.spans, found.frames, strict=True))
    for span, frames in zip(alone.spans[:-1], alone.frames, strict=False):
        np.testing.assert_array_equal(together[span], frames)


@pytest.mark.parametrize('overlap', [0.0, 0.5])
@pytest.mark.parametrize('kind', [made.write_constant, made.late_start])
def test_a_test_measures_the_segments_of_an_index(
    tmp_path: Path, kind: Any, overlap: float
) -> None:
    """``MomentMetric`` and an index read the same frames."""
    video = kind(tmp_path / 'a.mp4')
    found = read(video.path, segment=1.5, overlap=overlap)
    results: dict[str, Any] = dict(
        video_id='a', video=str(video.path), start=None, end=None
    )
    for transform in (
        OpenVideo(),
        SampleWindows(SampleFrames(num_frames=12), [1.5], overlap=overlap),
        DecodeFrames(),
    ):
        results = transform(results)
    assert [(x, y) for x, y, _ in results['windows']] == found.spans
    for (_, _, places), frames in zip(
        results['windows'], found.frames, strict=True
    ):
        own = np.stack([results['frames'][place] for place in places])
        np.testing.assert_array_equal(own.transpose(0, 3, 1, 2), frames)


def test_damage_takes_the_segments_that_need_it(tmp_path: Path) -> None:
    video = made.write_constant(tmp_path / 'a.mp4', 400, options={'g': '20'})
    content = bytearray(video.path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
    video.path.write_bytes(bytes(content))
    whole = read(video.path, segment=4, overlap=0.5)
    if not whole.error:
        pytest.skip('this FFmpeg hides the damage')
    assert whole.spans  # what is sound can be found
    lost = whole.error.split(':')[0]
    assert lost.count(' to ') == 1  # neighbours are named as one part


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Three shots: 2 s of red, 3 s of green, 2.5 s of blue, that move."""
    from eaglenet_mm.datasets.story.writing import write_video

    rng = np.random.default_rng(0)
    frames = []
    for colour, count in (((200, 20, 20), 16), ((20, 200, 20), 24),
                          ((20, 20, 120), 20)):  # fmt: skip
        part = np.full((count, 48, 64, 3), colour, np.float64)
        part += rng.normal(0, 3, part.shape)
        for place in range(count):
            part[place, 10:20, place : place + 10] = 255
        frames.append(part.clip(0, 255).astype(np.uint8))
    path = tmp_path / 'shots.mp4'
    write_video(path, np.concatenate(frames))
    return path


def test_shots_are_found_by_their_content(shots: Path) -> None:
    pytest.importorskip('scenedetect')
    with open_video(str(shots)) as video:
        found = find_shots(video)
    assert found == [(0, 2), (2, 5), (5, 7.5)]
    moments = read(shots, segment='shots')
    assert moments.spans == found
    assert not moments.error
    for frames, channel in zip(moments.frames, (0, 1, 2), strict=True):
        assert frames[:, channel, 40].mean() > 100
        assert frames[:, channel - 1, 40].mean() < 60


def test_a_long_shot_is_cut(
    shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('scenedetect')
    monkeypatch.setattr(segments, 'LONGEST_SHOT', 1.0)
    with open_video(str(shots)) as video:
        found = find_shots(video)
    assert found[:2] == [(0, 1), (1, 2)]
    assert {0.0, 2.0, 5.0} <= {start for start, _ in found}
    assert found[-1][1] == 7.5


def test_shots_of_a_file_that_breaks_off(
    shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('scenedetect')
    with open_video(str(shots)) as video:
        whole = video.stream

        def stream(numbers: list[int]) -> Any:
            for number, frame in whole(numbers):
                if number == 30:
                    raise VideoReadError('damaged')
                yield number, frame

        monkeypatch.setattr(video, 'stream', stream)
        assert find_shots(video) == [(0, 2), (2, 7.5)]


@pytest.mark.parametrize(
    ('segment', 'overlap', 'message'),
    [
        ('shot', 0, "'shot'"),
        (-1, 0, '-1'),
        (float('inf'), 0, 'inf'),
        (2, 1, 'but is 1'),
        (2, -0.1, 'but is -0.1'),
        (0, 0.5, 'segment=0'),
        ('shots', 0.5, 'do not overlap'),
    ],
)
def test_odd_segments(
    segment: float | str, overlap: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_segment(segment, overlap)


def test_shots_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'scenedetect', None)
    with pytest.raises(ImportError, match=r'eaglenet_mm\[shots\]'):
        make_detector()


def test_parsing() -> None:
    assert parse_segment('1.5m') == 90
    assert parse_segment(' shots ') == 'shots'
    with pytest.raises(ValueError, match="'shot'"):
        parse_segment('shot')
