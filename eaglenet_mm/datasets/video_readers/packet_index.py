"""Map from frame numbers to time stamps, without decoding."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from eaglenet_mm.datasets.video_readers.timeline import Clock, Timeline
from eaglenet_mm.datasets.video_readers.video_header import (
    VideoHeader,
    video_stream,
)

# Codecs with one frame per packet. HEVC decoders drop frames after a splice or
# damage, VP8 hides reference frames in packets.
_ONE_FRAME_A_PACKET = frozenset({'h264', 'vp9'})
# FFmpeg's AVFMT_TS_DISCONT
_CLOCK_MAY_JUMP = 0x0200
# Bit of the first byte of a VP8 packet: the frame is shown.
_SHOWN_IN_VP8 = 0x10
_IDR = 5  # slice type of an H.264 picture that ends all references


@dataclass(frozen=True)
class PacketIndex:
    """Display times of all frames, and places where decoding can start.

    ``times`` are the time stamps of all frames and ``keys`` those of the key
    frames, ascending. If ``is_trusted`` is False, only sequential decoding
    identifies frames, and ``timeline`` is an estimate from the packets.
    ``can_skip``: the decoder may skip non-reference frames.
    ``has_decoding_times``: the time stamps are decoding times although frames
    are reordered.
    """

    num_packets: int
    times: list[int]
    keys: list[int]
    is_trusted: bool
    can_skip: bool
    timeline: Timeline
    clock: Clock
    has_decoding_times: bool = False

    @cached_property
    def key_set(self) -> frozenset[int]:
        """Time stamps of the key frames."""
        return frozenset(self.keys)

    def group_by_key(self, times: Sequence[int]) -> dict[int, list[int]]:
        """Group times by the key frame to decode from, ascending."""
        groups: dict[int, list[int]] = {}
        for time in sorted(set(times)):
            key = self.keys[bisect_right(self.keys, time) - 1]
            groups.setdefault(key, []).append(time)
        return groups


def index_packets(
    container: Any,
    header: VideoHeader,
    on_packet: Callable[[], None] = lambda: None,
) -> PacketIndex:
    """Read all packets of the first video stream of a fresh container.

    The index is trusted if the container states times, every packet has a
    distinct one in an order that fits the codec, the first is a key frame, no
    frame refers across a key frame, nothing is to be discarded, and the
    header's frame count agrees.
    ``on_packet`` may raise to stop.
    """
    stream = video_stream(container)
    in_h264 = _IDRFinder(stream) if header.codec == 'h264' else None
    times: list[int | None] = []
    shown: list[tuple[int | None, int | None]] = []
    keys: list[int] = []
    durations: dict[int | None, int | None] = {}
    whole = closed = True
    others: list[int] = []
    # if clocks may jump, other streams tell a jump from a pause
    every = () if clock_of(container, header).may_jump else (stream,)
    for packet in container.demux(*every):
        on_packet()
        if packet.stream is not stream:
            if packet.pts is not None:
                seconds = packet.pts * packet.time_base
                others.append(round(seconds / stream.time_base))
            continue
        if not packet.size:
            continue
        whole = whole and not (packet.is_corrupt or packet.is_discard)
        times.append(packet.pts)
        if not packet.is_discard and _is_shown(packet, header.codec):
            shown.append((packet.pts, packet.dts))
            durations[packet.pts] = packet.duration
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
        if in_h264 is not None:
            closed = closed and (
                in_h264.holds_idr(bytes(packet)) == packet.is_keyframe
            )
    known = sorted(time for time in times if time is not None)
    trusted = (
        whole
        and closed
        and header.is_mov_or_matroska
        and header.codec in _ONE_FRAME_A_PACKET
        and header.num_frames in (0, len(times))
        and len(set(known)) == len(times) > 0
        and bool(keys)
        and times[0] == keys[0] == known[0]
        and _order_fits(times, known, stream.codec_context.has_b_frames)
    )
    clock = clock_of(container, header, sorted(others))
    stamps = clock.in_display_order(shown)
    reordered = 'mp4' in header.container and times != known
    timeline = clock.timeline(
        list(clock.ticks(stamps)),
        durations.get(stamps[-1]) if stamps else None,
        other_durations=[*filter(None, durations.values())] * reordered,
        stated_end=header.video_duration,
    )
    return PacketIndex(
        num_packets=len(times),
        times=known,
        keys=sorted(keys),
        is_trusted=trusted,
        can_skip=header.codec == 'h264',
        timeline=timeline,
        clock=clock,
        has_decoding_times=(
            header.container == 'avi'
            or (
                bool(stream.codec_context.has_b_frames)
                and times == known
                and len(known) > 2
                # FFmpeg makes up decoding times for Matroska
                and (
                    'matroska' in header.container
                    or all(dts in (None, pts) for pts, dts in shown)
                )
            )
        ),
    )


def clock_of(
    container: Any, header: VideoHeader, other_times: Sequence[int] = ()
) -> Clock:
    """Return the clock of the first video stream of an open container."""
    time_base = Fraction(video_stream(container).time_base)
    zero = 0
    # other formats count from the start of their earliest stream
    if not header.is_mov_or_matroska and container.start_time is not None:
        zero = round(Fraction(container.start_time, 1_000_000) / time_base)
    return Clock(
        time_base,
        header.fps,
        zero=zero,
        may_jump=bool(int(container.format.flags) & _CLOCK_MAY_JUMP),
        other_times=other_times,
    )


def _is_shown(packet: Any, codec: str) -> bool:
    """Whether a packet gives a visible frame; VP8 has hidden ones."""
    return codec != 'vp8' or bool(bytes(packet)[0] & _SHOWN_IN_VP8)


def _order_fits(
    times: list[int | None], known: list[int], is_reordered: bool
) -> bool:
    """Whether times are unsorted exactly if frames are reordered.

    Some containers give decoding times instead of display times.
    """
    if is_reordered and len(known) > 2:  # two frames are never reordered
        return times != known
    return times == known


class _IDRFinder:
    """Finds H.264 key frames that no later frame refers across.

    After other key frames (recovery points of open GOPs and of intra refresh)
    come frames that need earlier ones; decoders that start there drop or spoil
    them.
    """

    def __init__(self, stream: Any) -> None:
        extra = bytes(stream.codec_context.extradata or b'')
        # 'avcC' prefixes units with their length; others use start codes
        self._length_size = (extra[4] & 3) + 1 if extra[:1] == b'\1' else 0

    def holds_idr(self, packet: bytes) -> bool:
        """Whether a packet contains a slice of an IDR picture."""
        return any(packet[place] & 31 == _IDR for place in self._units(packet))

    def _units(self, packet: bytes) -> Iterator[int]:
        """Yield the position of the first byte of each unit."""
        place = 0
        if self._length_size:
            while place + self._length_size < len(packet):
                begin = place + self._length_size
                yield begin
                place = begin + int.from_bytes(packet[place:begin], 'big')
            return
        place = packet.find(b'\0\0\1')
        while 0 <= place < len(packet) - 3:
            yield place + 3
            place = packet.find(b'\0\0\1', place + 3)
