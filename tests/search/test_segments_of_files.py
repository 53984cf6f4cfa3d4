"""Segments of files whose times are easy to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from eaglenet_mm.datasets.video_readers import PyAVReader
from eaglenet_mm.search.moment_reading import MomentReader
from tests.datasets.video_readers import made_videos as made
from tests.datasets.video_readers.made_videos import MadeVideo, read_numbers
from tests.search.joined_moments import join

# the pictures stay whole, so that their numbers can be read
PIPELINE = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=12),
    dict(type='DecodeFrames'),
    dict(type='PackRetrievalInputs'),
]
KINDS: dict[str, Callable[[Path], MadeVideo]] = {
    'constant.mp4': lambda path: made.write_constant(path, count=400),
    'hevc.mp4': lambda path: made.write_constant(
        path, count=400, codec='libx265'
    ),
    'fast_then_slow.mp4': made.fast_then_slow,
    'slow_then_fast.webm': lambda path: made.slow_then_fast(
        path, codec='libvpx-vp9'
    ),
    'late.mp4': made.late_start,
    'joined.ts': lambda path: made.joined_ts(path, count=200),
    'jumping.ts': lambda path: made.joined_ts(path, (0, 20_000)),
    'says_8_seconds.mkv': lambda path: made.with_header_duration(
        made.write_constant(path, count=400), 8
    ),
    'says_nothing.mkv': lambda path: made.with_header_duration(
        made.write_constant(path, count=400), 0
    ),
}


def read(path: Path, segment: float) -> SimpleNamespace:
    reader = MomentReader(PIPELINE, segment=segment, num_workers=0)
    return join(found for _, found, _ in reader.read([str(path)]))


@pytest.mark.parametrize('kind', KINDS)
def test_the_frames_of_each_second(kind: str, tmp_path: Path) -> None:
    video = KINDS[kind](tmp_path / kind)
    slack = float(video.tick)
    found = read(video.path, 6)
    assert not found.error
    assert found.duration == pytest.approx(float(video.end), abs=slack)
    assert found.spans[-1][1] == found.duration
    assert found.spans[0][0] <= video.times[0] + slack
    assert all(end == start for (_, end), (start, _) in pairwise(found.spans))
    for span, frames, times in zip(
        found.spans, found.frames, found.frame_times, strict=True
    ):
        wanted = {
            video.shown_at(second + 2 * slack)
            for second in np.arange(span[0], span[1] - 3 * slack)
        } - {None}
        shown = read_numbers(frames.transpose(0, 2, 3, 1))
        assert shown == [video.numbers[index] for index in sorted(wanted)]
        for index, second in zip(sorted(wanted), times, strict=True):
            known = max(float(video.times[index]), span[0])
            assert second == pytest.approx(known, abs=slack)


def test_a_file_that_ends_before_its_header_says(tmp_path: Path) -> None:
    whole = made.write_constant(tmp_path / 'a.mkv', count=400)
    video = made.cut_off(whole)
    found = read(video.path, 6)
    assert found.duration == pytest.approx(float(video.end), abs=0.2)
    assert found.spans[-1][1] == found.duration
    assert f'ends at {found.duration:.1f}' in found.error
    assert 'annotation' not in found.error
    assert read(video.path, 0).frames  # it can still be searched as a whole


def test_damage_in_neighbouring_segments(tmp_path: Path) -> None:
    video = made.write_constant(tmp_path / 'a.mp4', 400, options={'g': '20'})
    with av.open(str(video.path)) as container:
        packets = {
            packet.pts * packet.time_base: (packet.pos, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.pts is not None
        }
    content = bytearray(video.path.read_bytes())
    for second in (9, 13, 25):
        place, is_key = packets[second]
        assert not is_key
        content[place : place + 4] = b'\xff' * 4
    video.path.write_bytes(content)
    found = read(video.path, 4)
    starts = [start for start, _ in found.spans]
    assert starts == [0, 4, 16, 20, 28, 32, 36]
    assert found.error.startswith('8 to 16 s, 24 to 28 s: decoding failed')


@pytest.mark.parametrize('codec', ['libx264', 'libx265', 'libvpx-vp9'])
def test_a_file_is_gone_through_once(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the codec, and however many segments there are."""
    video = made.write_constant(tmp_path / 'a.mp4', count=400, codec=codec)
    close, steps = PyAVReader.close, []

    def counted(self: PyAVReader) -> None:
        steps.append(self.progress)
        close(self)

    monkeypatch.setattr(PyAVReader, 'close', counted)
    assert len(read(video.path, 2).spans) == 20
    # its packets are counted, then decoded
    assert 760 <= sum(steps) <= 880
