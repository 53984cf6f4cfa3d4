"""Seconds are those of the clock, in every kind of file and every reader."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eaglenet_mm.datasets import DecodeFrames, OpenVideo, SampleFrames
from eaglenet_mm.datasets.video_compression import compress_video
from eaglenet_mm.datasets.video_readers import (
    PyAVReader,
    VideoReadError,
    VideoSamplingError,
    VideoTimelineError,
    open_video,
    opencv_reader,
)
from tests.datasets.video_readers import made_videos as made
from tests.datasets.video_readers.backends import few, usable
from tests.datasets.video_readers.made_videos import MadeVideo, read_numbers

BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not usable(name), reason=f'needs {name}'),
    )
    for name in ('pyav', 'opencv', 'decord', 'torchcodec')
]
KINDS: dict[str, Callable[[Path], MadeVideo]] = {
    'fast then slow': lambda path: made.fast_then_slow(path / 'a.mp4'),
    'B frames': lambda path: made.slow_then_fast(
        path / 'a.mp4', options={'bf': '3', 'b_strategy': '0'}
    ),
    'HEVC': lambda path: made.fast_then_slow(path / 'a.mp4', codec='libx265'),
    'VP8': lambda path: made.slow_then_fast(path / 'a.webm', codec='libvpx'),
    'VP9': lambda path: made.slow_then_fast(
        path / 'a.webm', codec='libvpx-vp9'
    ),
    'Matroska': lambda path: made.fast_then_slow(path / 'a.mkv'),
    'AVI': lambda path: made.write_constant(path / 'a.avi', codec='mpeg4'),
    'late': lambda path: made.late_start(path / 'a.mp4'),
    'skipped start': lambda path: made.skipped_start(path / 'a.mp4'),
    'joined': lambda path: made.joined_ts(path / 'a.ts'),
    'jumping': lambda path: made.joined_ts(path / 'a.ts', starts=(0, 700)),
    'going back by hours': lambda path: made.joined_ts(
        path / 'a.ts', starts=(9000, 0)
    ),
    'repeating stamps': lambda path: made.repeating_stamps(path / 'a.mkv'),
    'stamps that go back': lambda path: made.stamps_that_go_back(
        path / 'a.mkv'
    ),
    'missing stamps': lambda path: made.missing_stamps_ts(path / 'a.ts'),
    'short header': lambda path: made.with_header_duration(
        made.write_constant(path / 'a.mkv'), 1
    ),
    'header of 0': lambda path: made.with_header_duration(
        made.write_constant(path / 'a.mkv'), 0
    ),
    'header of 10 hours': lambda path: made.with_header_duration(
        made.write_constant(path / 'a.mkv'), 36_000
    ),
}


def sample(video: MadeVideo, backend: str, **change: Any) -> dict[str, Any]:
    item = dict(video_id='v', video=str(video.path), **change)
    item = OpenVideo(backend=backend)(item)
    return DecodeFrames()(SampleFrames(999, mode='clean')(item))


def check(video: MadeVideo, backend: str) -> bool:
    """Compare all and a part; False for files that a reader refuses."""
    try:
        with open_video(str(video.path), backend=backend) as reader:
            timeline = reader.timeline
            numbers = read_numbers(reader.get_batch(range(len(video.times))))
    except VideoReadError:
        assert backend in ('decord', 'torchcodec')
        return False
    assert numbers == list(video.numbers)
    slack = float(video.tick) + 1e-6
    assert [timeline.seconds(i) for i in range(len(timeline))] == (
        pytest.approx([float(time) for time in video.times], abs=slack)
    )
    last_step = video.times[-1] - video.times[-2]
    assert timeline.duration == pytest.approx(
        float(video.end), abs=float(last_step) + slack
    )
    third = (2 * video.times[0] + video.times[-1]) / 3
    start = float(round(third, 2))
    for part in (dict(), dict(start=start, end=start + 5)):
        found = sample(video, backend, **part)
        expected: list[int] = []
        point = Fraction(part.get('start', 0)).limit_denominator(10**6)
        limit = timeline.end * timeline.time_base
        if part:
            limit = min(limit, point + 5)
        while point < limit:
            # the file rounds its times to ticks
            seen = video.shown_at(point + video.tick / 2)
            if seen is None and video.times[0] < point + 1:
                seen = 0
            if seen is not None and seen not in expected:
                expected.append(seen)
            point += 1
        assert found['frame_indices'] == expected
        assert read_numbers(found['frames']) == [
            video.numbers[i] for i in expected
        ]
        for index, told in zip(expected, found['frame_times'], strict=True):
            shown = max(video.times[index], part.get('start', 0))
            assert told == pytest.approx(float(shown), abs=slack)
    return True


@pytest.mark.parametrize('backend', few(BACKENDS, 1))
@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_file(tmp_path: Path, kind: str, backend: str) -> None:
    read = check(KINDS[kind](tmp_path), backend)
    assert read or backend in ('decord', 'torchcodec')


@pytest.mark.parametrize('backend', BACKENDS)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_timeline(tmp_path: Path, backend: str, seed: int) -> None:
    """Rates, gaps, offsets and B frames by chance."""
    draw = random.Random(seed)
    codec, suffix = draw.choice(
        [
            ('libx264', '.mp4'),
            ('libx264', '.mkv'),
            ('libx265', '.mp4'),
            ('libvpx-vp9', '.webm'),
            ('libx264', '.ts'),
        ]
    )
    rate = draw.choice([5, 10, 24, Fraction(30000, 1001)])
    gaps = [1 / Fraction(rate)] * 30
    if suffix != '.ts':
        for place in draw.sample(range(30), 4):
            gaps[place] *= draw.randint(2, 40)
    begin = draw.choice([0, 0, Fraction(3, 10), 4]) if suffix == '.mp4' else 0
    times = list(accumulate(gaps, initial=Fraction(begin)))
    options = {'bf': '2', 'b_strategy': '0'} if codec == 'libx264' else {}
    video = made.write_video(
        tmp_path / f'{seed}{suffix}',
        times,
        codec=codec,
        rate=rate,
        options=options,
        sound=bool(begin),
    )
    check(video, backend)


def test_a_plan_that_does_not_hold(tmp_path: Path) -> None:
    """Frames that the decoder leaves out shift the numbers of all others."""
    video = made.write_constant(tmp_path / 'a.mp4', codec='libx265')
    with PyAVReader(str(video.path)) as reader:
        plan = reader.timeline
        plan.ticks.insert(3, plan.ticks[3])
        with pytest.raises(VideoTimelineError, match='frame 4'):
            reader.get_batch([20])
        assert len(reader.timeline) == len(video.times) == reader.num_frames
        assert read_numbers(reader.get_batch([20])) == [20]
    item = OpenVideo()(dict(video_id='v', video=str(video.path)))
    ticks = item['video_reader'].timeline.ticks
    ticks[:] = [ticks[0], *ticks]
    results = DecodeFrames()(SampleFrames(9, mode='clean')(item))
    assert read_numbers(results['frames']) == [0, 10, 20, 30]


@pytest.mark.parametrize('codec', ['libx264', 'libx265'])
def test_a_stream_gives_each_once_in_one_pass(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = made.write_constant(tmp_path / 'a.mp4', codec=codec, count=60)
    with PyAVReader(str(video.path)) as reader:
        found = list(reader.stream([50, 3, 3, 17]))
        assert [number for number, _ in found] == [3, 17, 50]
        assert read_numbers([image for _, image in found]) == [3, 17, 50]
        assert reader.progress <= 2 * len(video.times) + 2


def test_the_file_ends_early(tmp_path: Path) -> None:
    """And says at which second, and that its header promised more."""
    whole = made.write_constant(tmp_path / 'a.mkv', count=100)
    cut = made.cut_off(whole)
    with open_video(str(cut.path)) as reader:
        assert reader.timeline.duration < 8
        note = reader.time_note
    assert 'promises 10.0 seconds' in note
    assert f'ends at {reader.timeline.duration:.1f}' in note


def test_sound_that_goes_on_is_no_early_end(tmp_path: Path) -> None:
    """The header of Matroska states how long the longest stream is."""
    path = tmp_path / 'a.mkv'
    video = made.write_constant(tmp_path / 'video.mkv')
    longer = made.write_constant(tmp_path / 'sound.mkv', 90, sound=True)
    with (
        av.open(str(video.path)) as pictures,
        av.open(str(longer.path)) as sound,
        av.open(str(path), 'w') as both,
    ):
        sources = (pictures.streams.video[0], sound.streams.audio[0])
        copies = [both.add_stream_from_template(source) for source in sources]
        for source, copy in zip(sources, copies, strict=True):
            for packet in source.container.demux(source):
                if packet.size:
                    packet.stream = copy
                    both.mux(packet)
    with PyAVReader(str(path)) as reader:
        assert reader.header.video_duration > 8.5
        assert reader.timeline.duration < 4.5
        assert reader.time_note == ''


@pytest.mark.parametrize(('start', 'end'), [(20, 30), (2, 2), (3, 2)])
def test_no_frame_in_the_span(tmp_path: Path, start: int, end: int) -> None:
    video = made.write_constant(tmp_path / 'a.mp4')
    with pytest.raises(
        VideoSamplingError, match=f'between {start} and {end} seconds'
    ):
        sample(video, 'pyav', start=start, end=end)


@pytest.mark.parametrize('suffix', few(['.mp4', '.mkv', '.flv', '.ts']))
def test_times_of_decoding_in_the_place_of_display(
    tmp_path: Path, suffix: str
) -> None:
    """As in what was copied from AVI: B frames would count twice."""
    source = made.write_constant(
        tmp_path / 'a.mp4', 60, options={'bf': '2', 'b_strategy': '0'}
    )
    path = tmp_path / f'copy{suffix}'
    with (
        av.open(str(source.path)) as old,
        av.open(str(path), 'w') as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        numbers = iter(range(60))
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = next(numbers) * packet.duration
                packet.stream = stream
                new.mux(packet)
    for backend in ('pyav', 'opencv'):
        with open_video(str(path), backend=backend) as reader:
            assert reader.timeline.duration == pytest.approx(6, abs=0.15)
        item = OpenVideo(backend=backend)(
            dict(video_id='v', video=str(path), start=2, end=4)
        )
        found = DecodeFrames()(SampleFrames(9, 2, mode='clean')(item))
        assert read_numbers(found['frames']) == [20, 25, 30, 35]
    assert compress_video(path, tmp_path / 'small.mp4', fps=3) == 18


def test_a_pause_of_a_broadcast_with_sound(tmp_path: Path) -> None:
    times = [Fraction(n, 10) for n in (*range(20), *range(200, 220))]
    video = made.write_video(tmp_path / 'a.ts', times, sound=True, rate=10)
    with open_video(str(video.path)) as reader:
        assert reader.timeline.duration == pytest.approx(22, abs=0.3)
        assert reader.timeline.seconds(20) == pytest.approx(20, abs=0.1)
    assert compress_video(video.path, tmp_path / 'small.mp4') in (66, 67)


@pytest.mark.parametrize('backend', ['pyav', 'opencv', 'decord'])
def test_all_readers_know_variable_rates(tmp_path: Path, backend: str) -> None:
    video = made.fast_then_slow(tmp_path / 'a.mp4')
    even = made.write_constant(tmp_path / 'b.mp4')
    with open_video(str(video.path), backend=backend) as reader:
        reader.get_batch([310])
        assert reader.has_variable_rate
    with open_video(str(even.path), backend=backend) as reader:
        reader.get_batch([30])
        assert not reader.has_variable_rate


def test_time_limits_count_the_progress_of_readers_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV's times and first pictures are PyAV's."""
    video = made.write_constant(tmp_path / 'a.mp4', codec='libx265')
    step = PyAVReader._step
    monkeypatch.setattr(
        PyAVReader, '_step', lambda self: (time.sleep(0.02), step(self))
    )
    with open_video(
        str(video.path), backend='opencv', time_limit=0.6
    ) as reader:
        assert len(reader.timeline) == 40
        assert read_numbers(reader.get_batch([39])) == [39]


def test_opencv_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds count from the first frame, and clocks may start anew."""
    video = made.joined_ts(tmp_path / 'a.ts', count=20)
    monkeypatch.setattr(opencv_reader, 'find_spec', lambda name: None)
    found = sample(video, 'opencv')
    assert read_numbers(found['frames']) == [
        video.numbers[i] for i in (0, 10, 20, 30)
    ]


def test_a_size_that_changes(tmp_path: Path) -> None:
    """All frames have the size of the header, whatever was read before."""
    parts = [
        made.write_constant(
            tmp_path / f'{size[0]}.mp4',
            20,
            size=size,
            options={'g': '5', 'bf': '0', 'x264-params': 'repeat-headers=1'},
        )
        for size in ((96, 64), (192, 128))
    ]
    path = tmp_path / 'both.mkv'
    with av.open(str(path), 'w') as new:
        for number, part in enumerate(parts):
            with av.open(str(part.path)) as old:
                source = old.streams.video[0]
                if not number:
                    stream = new.add_stream_from_template(source)
                for packet in old.demux(source):
                    if packet.size:
                        packet.pts += number * 20 * packet.duration
                        packet.dts += number * 20 * packet.duration
                        packet.stream = stream
                        new.mux(packet)
    with open_video(str(path)) as reader:
        shapes = [reader.get_batch([n]).shape for n in (5, 35, 5)]
    assert shapes == [(1, 64, 96, 3)] * 3
