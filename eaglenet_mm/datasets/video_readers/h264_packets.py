"""What packets of H.264 hold."""

from typing import Any

_IDR = 5  # type of a slice of a picture that ends all references


class IDRFinder:
    """Tell key frames that nothing behind them looks beyond.

    Other key frames (recovery points of open groups of pictures and of intra
    refresh) are followed by frames that need earlier ones, and decoders leave
    out or spoil frames there when they begin at one.

    Args:
        stream (av.VideoStream): Has the extra data of the codec, which says
            how units are separated.
    """

    def __init__(self, stream: Any) -> None:
        extra = bytes(stream.codec_context.extradata or b'')
        # 'avcC': units follow their length; else start codes lie between
        self._length_size = (extra[4] & 3) + 1 if extra[:1] == b'\1' else 0

    def holds_idr(self, packet: bytes) -> bool:
        """Whether a packet holds a slice of an IDR picture."""
        if self._length_size:
            return self._holds_idr_by_length(packet)
        place = packet.find(b'\0\0\1')
        while 0 <= place < len(packet) - 3:
            if packet[place + 3] & 31 == _IDR:
                return True
            place = packet.find(b'\0\0\1', place + 3)
        return False

    def _holds_idr_by_length(self, packet: bytes) -> bool:
        place = 0
        while place + self._length_size < len(packet):
            begin = place + self._length_size
            if packet[begin] & 31 == _IDR:
                return True
            place = begin + int.from_bytes(packet[place:begin], 'big')
        return False
