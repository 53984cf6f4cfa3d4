"""Exact reader on PyAV, for every container FFmpeg knows."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from .base import VideoReader, VideoReadError
from .colours import describe_colours
from .packet_index import PacketIndex, index_packets
from .video_header import header_of, open_container, video_stream


class PyAVReader(VideoReader):
    """Decode from the key frame before each wanted frame, and check.

    Which time stamp frame i has is read off the packets, without decoding.
    Where they do not tell for certain (AVI, MPEG-TS, cut streams), or the
    decoder delivers another time than the one asked for, decoding in order
    from the first frame decides, which is exact for every file. Frames that
    no other frame refers to are not decoded unless wanted, and frames are
    converted to RGB only when they are kept.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): What messages call it. Defaults to the path.
        num_threads (int): Threads of the decoder, 0 for all cores. Defaults
            to 1: loader workers already fill the processors.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is no video.
    """

    def __init__(
        self, source: str | bytes, *, name: str = '', num_threads: int = 1
    ) -> None:
        super().__init__(source, name=name)
        self._num_threads = num_threads
        self._container: Any = self._open()
        self._index: PacketIndex | None = None
        self._begins_right: bool | None = None
        try:
            self.header = header_of(self._container)
            self.fps = self.header.fps
            self._time_base = video_stream(self._container).time_base
            self.num_frames = (
                self.header.num_frames or self._packets().num_packets
            )
        except BaseException:
            self.close()
            raise
        self.num_frames_reported = (
            self.header.num_frames_estimated or self.num_frames
        )

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        kept = self._seek(indices)
        if kept is None:
            kept = self._read_in_order(indices)
        return np.stack([kept[index] for index in indices])

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Say when frames are shown, by their own time stamps if sure."""
        packets = self._index
        if (
            packets is None
            or not packets.is_trusted
            or max(indices) >= packets.num_packets
        ):
            return super().frame_times(indices)
        return [
            float(packets.times[index] * self._time_base) for index in indices
        ]

    def others_are_exact(self) -> bool:
        """Whether readers that seek on their own deliver the right frames.

        decord and torchcodec deliver other frames than those asked for,
        without an error, in AVI, MPEG-TS and MPEG-PS, behind open groups of
        pictures, in fragments, interlaced video and more. They are right
        where this reader can read frame numbers off the packets of a single
        progressive 8-bit stream that is in one piece.
        """
        header = self.header
        # formats with more bits a sample end in their byte order
        eight_bit = not header.pixel_format.endswith(('le', 'be'))
        in_one_piece = header.num_frames > 0 or 'mp4' not in header.container
        return (
            eight_bit
            and in_one_piece
            and header.num_video_streams == 1
            and header.is_mov_or_matroska
            and self._packets().is_trusted
            and self._keys_are_listed()
            and not self.is_interlaced()
        )

    def _keys_are_listed(self) -> bool:
        """Whether an MP4 file lists the key frames that it has."""
        if 'mp4' not in self.header.container:
            return True
        entries = video_stream(self._container).index_entries
        listed = sum(bool(entry.is_keyframe) for entry in entries)
        return listed == len(self._packets().keys)

    def is_interlaced(self) -> bool:
        """Whether the first frame is made of two fields."""
        return any(
            bool(frame.interlaced_frame) for frame in islice(self.decode(), 1)
        )

    def close(self) -> None:
        """Release the file."""
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _packets(self) -> PacketIndex:
        """Index the packets, once."""
        import av

        if self._index is None:
            try:
                self._index = index_packets(
                    self._container, self.header, self._check_cancelled
                )
            except av.FFmpegError as err:
                raise VideoReadError(
                    f'{self.path}: counting its frames failed ({err}). Copy '
                    'or encode the file again.'
                ) from err
        return self._index

    def _seek(self, indices: Sequence[int]) -> dict[int, np.ndarray] | None:
        """Decode from key frames; None if that is not sure to be right."""
        import av

        if not self.header.is_mov_or_matroska:
            return None
        packets = self._packets()
        if not packets.is_trusted or max(indices) >= packets.num_packets:
            return None
        times = {packets.times[index]: index for index in indices}
        found: dict[int, np.ndarray] = {}
        stream = video_stream(self._container)
        collect = _FrameCollector(stream, self.path)
        groups = packets.group_by_key(list(times))
        try:
            if self._begins_right is None and packets.keys[0] not in groups:
                # a decoder that leaves out the first frame shifts all others
                first = self._decode_until(packets, packets.keys[0], set())
                self._begins_right = bool(list(first))
            if self._begins_right is False:
                return None
            for key, wanted in groups.items():
                for time, frame in self._decode_until(
                    packets, key, set(wanted)
                ):
                    if time in times:
                        found[times[time]] = collect(frame)
        except (av.FFmpegError, ValueError):
            return None  # decoding in order tells how far the file goes
        return found if len(found) == len(times) else None

    def _decode_until(
        self, packets: PacketIndex, key: int, wanted: set[int]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the key frame and the wanted ones behind it, with times.

        Ends before that where the decoder delivers something else.
        """
        stream = video_stream(self._container)
        self._container.seek(key, stream=stream, backward=True)
        context = stream.codec_context
        wanted = {key, *wanted}
        last = max(wanted)
        is_first = True
        for packet in self._container.demux(stream):
            self._check_cancelled()
            if packets.can_skip:
                context.skip_frame = (
                    'DEFAULT' if packet.pts in wanted else 'NONREF'
                )
            for frame in packet.decode():
                if frame.interlaced_frame or frame.is_corrupt:
                    return  # two fields may lie in packets of their own
                # seeking may land at an earlier key frame
                is_key = frame.pts in packets.key_set
                if is_first and not is_key:
                    return  # the decoder left out the frame it began at
                is_first = False
                if frame.pts in wanted:
                    wanted.remove(frame.pts)
                    yield frame.pts, frame
                if not wanted or frame.pts > last:
                    return

    def _read_in_order(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """Decode from the first frame on and keep what is asked for."""
        wanted, last = set(indices), max(indices)
        kept: dict[int, np.ndarray] = {}
        number = -1
        collect = _FrameCollector(video_stream(self._container), self.path)
        for number, frame in enumerate(self.decode()):
            if number in wanted:
                kept[number] = collect(frame)
            if number == last:
                return kept
        raise self._ended(number + 1, last)

    def decode(self) -> Iterator[Any]:
        """Yield all frames in order of display, as PyAV's objects.

        Raises:
            VideoReadError: If decoding fails before the end.
        """
        import av

        with self._open() as container:
            try:
                for frame in container.decode(video_stream(container)):
                    self._check_cancelled()
                    yield frame
            except (av.FFmpegError, ValueError) as err:
                raise VideoReadError(
                    f'{self.path}: decoding failed ({err}). Copy or encode '
                    'the file again, or leave it out of the annotation.'
                ) from err

    def _open(self) -> Any:
        """Open the file and set the threads of its decoder."""
        container = open_container(self.source, self.path)
        stream = video_stream(container)
        if stream.codec_context is None:
            container.close()
            raise VideoReadError(
                f'{self.path}: this FFmpeg has no decoder for its video. '
                'Encode the file again as H.264.'
            )
        stream.thread_type = 'AUTO'
        stream.codec_context.thread_count = self._num_threads
        return container


def refuse_wrong_frames(source: str | bytes, name: str, reader: str) -> None:
    """Refuse a file of which another reader may deliver wrong frames.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): What messages call it.
        reader (str): What messages call the reader.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If it is no video, or one of these.
    """
    with closing(PyAVReader(source, name=name)) as trusted:
        if not trusted.others_are_exact():
            header = trusted.header
            raise VideoReadError(
                f'{name}: {reader} may deliver other frames of it than those '
                f'asked for (it is {header.container}, {header.codec} '
                f'{header.pixel_format}, {header.num_video_streams} video '
                'stream(s)); it is right on progressive 8-bit H.264 and VP9 '
                'with closed groups of pictures in MP4, MOV and Matroska. Set '
                "backend='auto' or 'pyav' in OpenVideo."
            )


class _FrameCollector:
    """Convert frames to RGB, all to the size that the header states.

    A stream may change its size; batches need one, whatever is asked for.
    """

    def __init__(self, stream: Any, path: str) -> None:
        self._size = dict(width=stream.width, height=stream.height)
        self._path = path

    def __call__(self, frame: Any) -> np.ndarray:
        import av

        size = self._size
        if not all(size.values()):  # a header without it
            size = dict(width=frame.width, height=frame.height)
        try:
            image = _to_rgb(frame, size)
        except av.FFmpegError as err:
            raise VideoReadError(
                f'{self._path}: FFmpeg cannot convert its frames to RGB '
                f'({err}; format {frame.format.name}, colours '
                f'{describe_colours(frame)}). Encode the file again as BT.709.'
            ) from err
        return np.rot90(image, frame.rotation // 90)


def _to_rgb(frame: Any, size: dict[str, int]) -> np.ndarray:
    """Convert a frame, without starting a thread for each core.

    Starting FFmpeg's threads costs more than converting a small picture does
    (8.4 against 2.7 ms for 11 frames of 64 x 64). Older releases of PyAV have
    no choice of threads.
    """
    try:
        return frame.to_ndarray(format='rgb24', threads=1, **size)
    except TypeError:
        return frame.to_ndarray(format='rgb24', **size)
