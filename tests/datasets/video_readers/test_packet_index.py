"""Frame numbers from packets: trusted only where they are sure."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from eaglenet_mm.datasets.video_readers import PyAVReader, Timeline
from eaglenet_mm.datasets.video_readers.packet_index import (
    PacketIndex,
    index_packets,
)
from eaglenet_mm.datasets.video_readers.timeline import Clock
from eaglenet_mm.datasets.video_readers.video_header import (
    VideoHeader,
    header_of,
    open_container,
)


def index_of(path: Path) -> PacketIndex:
    with open_container(str(path), path.name) as container:
        return index_packets(container, header_of(container))


def of_one_rate(num_frames: int) -> dict[str, Any]:
    return dict(
        timeline=Timeline.at_rate(10, num_frames),
        clock=Clock(Fraction(1, 10), Fraction(10)),
    )


def test_groups_begin_at_key_frames() -> None:
    index = PacketIndex(
        6, [0, 1, 2, 3, 4, 5], [0, 2, 4], True, True, **of_one_rate(6)
    )
    assert index.group_by_key([5, 3, 0, 5]) == {0: [0], 2: [3], 4: [5]}


@pytest.mark.parametrize(
    ('name', 'options', 'trusted'),
    [
        ('a.mp4', dict(), True),
        ('a.mov', dict(options={'bf': '3', 'g': '9'}), True),
        ('a.mkv', dict(options={'bf': '2', 'b-pyramid': 'normal'}), True),
        ('a.mkv', dict(codec='libx265'), False),
        ('a.mp4', dict(options={'x264-params': 'open-gop=1:keyint=9'}), False),
        (
            'a.mp4',
            dict(options={'x264-params': 'intra-refresh=1:keyint=9'}),
            False,
        ),
        ('a.mp4', dict(num_frames=1), True),
        ('a.webm', dict(codec='libvpx-vp9'), True),
        ('a.webm', dict(codec='libvpx'), False),
        ('a.mp4', dict(codec='mpeg4'), False),
        ('a.avi', dict(), False),
        ('a.ts', dict(fps=25), False),
    ],
)
def test_what_is_trusted(
    write_clip: Callable[..., Path],
    name: str,
    options: dict[str, Any],
    trusted: bool,
) -> None:
    options = {'num_frames': 40, **options}
    count = options['num_frames']
    path = write_clip(name, **options)
    with av.open(str(path)) as container:
        expected = [
            frame.to_ndarray(format='rgb24')
            for frame in container.decode(video=0)
        ]
    index = index_of(path)
    assert index.num_packets == count
    assert index.is_trusted == trusted
    numbers = [count - 1, count // 2, 0]
    with PyAVReader(str(path)) as reader:
        assert bool(list(reader._seek(numbers))) == trusted
        frames = reader.get_batch(numbers)
    for number, frame in zip(numbers, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[number])


def cut(source: Path, target: Path, begin: int) -> Path:
    """Copy packets from one that is no key frame on."""
    with av.open(str(source)) as old, av.open(str(target), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number >= begin:
                packet.stream = stream
                new.mux(packet)
    return target


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_a_cut_that_begins_between_key_frames(
    write_clip: Callable[..., Path], suffix: str
) -> None:
    """The decoder drops what comes before the first key frame."""
    whole = write_clip(num_frames=40, options={'g': '12', 'bf': '0'})
    path = cut(whole, whole.with_name(f'cut{suffix}'), 5)
    assert not index_of(path).is_trusted
    with av.open(str(path)) as container:
        decoded = [
            frame.to_ndarray(format='rgb24')
            for frame in container.decode(video=0)
        ]
    with PyAVReader(str(path)) as reader:
        frames = reader.get_batch([0, len(decoded) - 1])
    np.testing.assert_array_equal(frames[0], decoded[0])
    np.testing.assert_array_equal(frames[1], decoded[-1])


def test_interlaced_video_is_decoded_in_order(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    path = write_clip(
        num_frames=30, options={'x264-params': 'tff=1:interlaced=1'}
    )
    with PyAVReader(str(path)) as reader:
        assert reader.is_interlaced()
        assert reader.packets().is_trusted
        assert list(reader._seek([3])) == []
        assert frame_numbers(reader.get_batch([3, 29])) == [3, 29]


def test_a_decoder_that_delivers_other_times(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    path = write_clip(num_frames=30, options={'g': '5'})
    with PyAVReader(str(path)) as reader:
        right = reader.packets()
        shifted = [time + 1 for time in right.times]
        reader._index = PacketIndex(
            30, shifted, right.keys, True, True, **of_one_rate(30)
        )
        assert list(reader._seek([4, 21])) == []
        assert frame_numbers(reader.get_batch([4, 21])) == [4, 21]


def test_only_what_is_needed_is_decoded(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(num_frames=40, options={'g': '10', 'bf': '0'})
    converted = []
    with PyAVReader(str(path)) as reader:
        decode = reader._decode_until

        def count(*args):
            for item in decode(*args):
                converted.append(item[0])
                yield item

        monkeypatch.setattr(reader, '_decode_until', count)
        monkeypatch.setattr(
            reader, 'decode', lambda: pytest.fail('decoded in order')
        )
        assert reader.get_batch([10, 35, 10]).shape[0] == 3
        assert len(converted) == 4  # three key frames, frame 35
        assert reader.get_batch([0]).shape[0] == 1
    assert len(converted) == 5


class Packets:
    """Stands for a container of VP9 with given packets."""

    def __init__(self, **change: Any) -> None:
        self.packets = [
            SimpleNamespace(
                size=9,
                pts=number,
                dts=number,
                duration=1,
                is_keyframe=number % 4 == 0,
                is_corrupt=False,
                is_discard=False,
            )
            for number in range(8)
        ]
        for name, (place, value) in change.items():
            setattr(self.packets[place], name, value)
        context = SimpleNamespace(has_b_frames=False)
        stream = SimpleNamespace(
            codec_context=context,
            time_base=Fraction(1, 10),
            disposition=SimpleNamespace(value=0),
        )
        for packet in self.packets:
            packet.stream = stream
        self.start_time = 0
        self.format = SimpleNamespace(flags=0)
        self.streams = SimpleNamespace(video=[stream])

    def demux(self, stream: Any) -> list[SimpleNamespace]:
        return self.packets


@pytest.mark.parametrize(
    ('change', 'num_frames', 'trusted'),
    [
        (dict(), 0, True),
        (dict(), 8, True),
        (dict(), 9, False),
        (dict(size=(7, 0)), 8, False),
        (dict(is_corrupt=(3, True)), 8, False),
        (dict(is_discard=(0, True)), 8, False),
        (dict(pts=(3, 2)), 8, False),
        (dict(pts=(3, None)), 8, False),
        (dict(pts=(3, 20)), 8, False),
        (dict(is_keyframe=(0, False)), 8, False),
    ],
)
def test_every_condition_of_trust(
    change: dict[str, Any], num_frames: int, trusted: bool
) -> None:
    header = VideoHeader(
        container='mov,mp4',
        codec='vp9',
        pixel_format='yuv420p',
        fps=Fraction(10),
        num_frames=num_frames,
        num_frames_estimated=8,
        duration=0.8,
        num_video_streams=1,
    )
    assert index_packets(Packets(**change), header).is_trusted == trusted


def test_decoding_that_does_not_begin_at_a_key_frame(
    write_clip: Callable[..., Path],
) -> None:
    path = write_clip(num_frames=30, options={'bf': '0'})
    with PyAVReader(str(path)) as reader:
        times = reader.packets().times
        wrong = PacketIndex(
            30, times, [times[3]], True, True, **of_one_rate(30)
        )
        # seeking lands at frame 0, which the index knows nothing of
        assert list(reader._decode_until(wrong, times[3], {times[4]})) == []
        right = PacketIndex(
            30, times, [times[0]], True, True, **of_one_rate(30)
        )
        found = reader._decode_until(right, times[0], {times[4]})
        assert [time for time, _ in found] == [times[0], times[4]]
