"""From frame numbers to time stamps, without decoding."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .video_header import VideoHeader, video_stream

# Codecs of which one packet is one frame, and decoding may begin at any key
# frame; VP8 hides reference frames in packets of their own.
_ONE_FRAME_A_PACKET = frozenset({'h264', 'hevc', 'vp9', 'mjpeg', 'png'})


@dataclass(frozen=True)
class PacketIndex:
    """When each frame of a video is shown, and where decoding may begin.

    Args:
        num_packets (int): Packets that carry data.
        times (list[int]): Time stamps of the frames, ascending: that of
            frame i is ``times[i]``.
        keys (list[int]): Time stamps of the key frames, ascending.
        is_trusted (bool): Whether frame numbers can be read off it. If
            not, only decoding in order tells which frame is which.
        can_skip (bool): Whether the decoder may leave out frames that no
            other frame needs.
    """

    num_packets: int
    times: list[int]
    keys: list[int]
    is_trusted: bool
    can_skip: bool

    def group_by_key(self, times: Sequence[int]) -> dict[int, list[int]]:
        """Say for each wanted time from which key frame to decode.

        Args:
            times (Sequence[int]): Wanted time stamps.

        Returns:
            dict[int, list[int]]: Wanted times by key frame, both ascending.
        """
        groups: dict[int, list[int]] = {}
        for time in sorted(set(times)):
            key = self.keys[bisect_right(self.keys, time) - 1]
            groups.setdefault(key, []).append(time)
        return groups


def index_packets(container: Any, header: VideoHeader) -> PacketIndex:
    """Go through all packets of the first video stream.

    Args:
        container (av.container.InputContainer): Open, and untouched. It is
            at its end afterwards.
        header (VideoHeader): What it says.

    Returns:
        PacketIndex: Trusted if the container states times, every packet has
        one of its own, the first is a key frame, nothing is to be cut off,
        and the header counts as many.
    """
    times: list[int | None] = []
    keys: list[int] = []
    whole = True
    for packet in container.demux(video_stream(container)):
        if not packet.size:
            continue
        whole = whole and not (packet.is_corrupt or packet.is_discard)
        times.append(packet.pts)
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
    known = sorted(time for time in times if time is not None)
    trusted = (
        whole
        and header.is_mov_or_matroska
        and header.codec in _ONE_FRAME_A_PACKET
        and header.num_frames in (0, len(times))
        and len(set(known)) == len(times) > 0
        and bool(keys)
        and times[0] == keys[0] == known[0]
    )
    return PacketIndex(
        num_packets=len(times),
        times=known,
        keys=sorted(keys),
        is_trusted=trusted,
        can_skip=header.codec == 'h264',
    )
