"""Exact reader on PyAV, for every container FFmpeg knows."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from eaglenet_mm.datasets.video_readers.base import (
    EachFrame,
    VideoReader,
    VideoReadError,
    VideoTimelineError,
)
from eaglenet_mm.datasets.video_readers.orientation import Orientation
from eaglenet_mm.datasets.video_readers.packet_index import (
    PacketIndex,
    clock_of,
    index_packets,
)
from eaglenet_mm.datasets.video_readers.timeline import Clock, Timeline
from eaglenet_mm.datasets.video_readers.video_header import (
    header_of,
    open_container,
    video_stream,
)

# Frames that a decoder may hold back, to put them in order: 16 in H.264.
_MOST_HELD_BACK = 16
# Colour matrices of ISO/IEC 23091-2 by number, and the number of full range.
_MATRICES = (
    *('RGB', 'BT.709', 'not stated', 'reserved', 'FCC', 'BT.601', 'BT.601'),
    *('SMPTE 240M', 'YCgCo', 'BT.2020', 'BT.2020 of constant luminance'),
)
_FULL_RANGE = 2
# Seconds that a video may be shorter than its header says: other streams, and
# rounding.
_DURATION_SLACK = 1.0


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
        name (str): Name in messages. Default: the path.
        num_threads (int): Threads of the decoder, 0 for all cores. Default:
            1, since loader workers already fill the processors.
        on_step (Callable, optional): Called for each packet and frame; may
            raise to stop. Default: None.

    Attributes:
        header (VideoHeader): What the container says.
        decoder (av.VideoCodecContext): Codec context of the last
            :meth:`decode`; None before.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is no video.
    """

    def __init__(
        self,
        source: str | bytes,
        *,
        name: str = '',
        num_threads: int = 1,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(source, name=name)
        self._on_step = on_step
        self._num_threads = num_threads
        self._container: Any = self._open()
        self._index: PacketIndex | None = None
        self._timeline: Timeline | None = None
        self._decoded: list[int] = []  # ticks, as far as read in order
        self._begins_right: bool | None = None
        self._orientation: Orientation | None = None
        self.decoder: Any = None
        stream = video_stream(self._container)
        # decoding may change what the stream says
        self._size = dict(width=stream.width, height=stream.height)
        try:
            self.header = header_of(self._container)
            self.fps = self.header.fps
            self._first_clock = clock_of(self._container, self.header)
            self.num_frames = (
                self.header.num_frames or self.packets().num_packets
            )
        except BaseException:
            self.close()
            raise
        self.num_frames_reported = (
            self.header.num_frames_estimated or self.num_frames
        )

    @property
    def timeline(self) -> Timeline:
        """Timeline: When frames are shown, by the packets until decoded."""
        if self._timeline is None:
            self._set_timeline(self.packets().timeline)
        assert self._timeline is not None
        return self._timeline

    def measure(self) -> None:
        """Make the timeline certain; decodes all where packets do not tell."""
        if not self.packets().is_trusted:
            self._decoded = []
            self._measure(
                self._decoded, None, self._clock().pair(self.decode())
            )

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        kept = self._collect(self._seek(indices), each)
        if len(kept) < len(set(indices)):
            kept = self._collect(self._read_in_order(indices), each)
        return _stack(kept, indices)

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames in one pass; see :meth:`VideoReader.stream`."""
        self._check_indices(indices)
        left = set(indices)
        convert = _Converter(self._size, self.path)
        # asking for the timeline makes reading in order compare with it
        if len(self.timeline) > max(left):
            for number, frame in self._seek(indices):
                left.remove(number)
                yield number, convert(frame, self.orientation())
        if left:
            for number, frame in self._read_in_order(sorted(left)):
                yield number, convert(frame, self.orientation())

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Say when frames are shown, by their own time stamps if known."""
        if max(indices) < len(self._decoded):
            base = self._clock().time_base
            return [float(self._decoded[index] * base) for index in indices]
        packets = self._index
        timeline = self._timeline
        if timeline is None and packets is not None and packets.is_trusted:
            timeline = packets.timeline
        if timeline is None or max(indices) >= len(timeline):
            return [float(i / self.fps) if self.fps else 0.0 for i in indices]
        return [timeline.seconds(index) for index in indices]

    @property
    def has_variable_rate(self) -> bool:
        """bool: Whether the steps between frames differ, as far as known."""
        if self._index is not None:
            return self._index.timeline.is_variable
        base = self._clock().time_base
        return Timeline(self._decoded, base, 0).is_variable

    def others_are_exact(self) -> bool:
        """Whether readers that seek on their own deliver the right frames.

        decord and torchcodec deliver other frames than those asked for,
        without an error, in AVI, MPEG-TS and MPEG-PS, behind open groups of
        pictures, in fragments, interlaced video and more. They are right
        where this reader can read frame numbers off the packets of a single
        progressive 8-bit stream that is in one piece and that the container
        turns, if at all, by whole quarters.
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
            and self.packets().is_trusted
            and self._keys_are_listed()
            and self._is_plain()
        )

    def _is_plain(self) -> bool:
        """Whether other readers turn and convert the frames like this one."""
        first = list(islice(self.decode(), 2))
        if first:
            self._look_at(first[0])
        turned = {Orientation.of_frame(frame) for frame in first}
        return turned == {Orientation.of_release(*first)} and not any(
            bool(frame.interlaced_frame) for frame in first
        )

    def _keys_are_listed(self) -> bool:
        """Whether an MP4 file lists the key frames that it has."""
        if 'mp4' not in self.header.container:
            return True
        entries = video_stream(self._container).index_entries
        listed = sum(bool(entry.is_keyframe) for entry in entries)
        return listed == len(self.packets().keys)

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

    def packets(self) -> PacketIndex:
        """Index the packets, once."""
        import av

        if self._index is None:
            try:
                self._index = index_packets(
                    self._container, self.header, self._step
                )
            except av.FFmpegError as err:
                raise VideoReadError(
                    f'{self.path}: counting its frames failed ({err}). Copy '
                    'or encode the file again.'
                ) from err
        return self._index

    def _clock(self) -> Clock:
        """What its time stamps mean, as far as known."""
        return self._first_clock if self._index is None else self._index.clock

    def _step(self) -> None:
        """Count for who waits for this reader, or for one that uses it."""
        super()._step()
        if self._on_step is not None:
            self._on_step()

    def _set_timeline(self, timeline: Timeline) -> None:
        """Take a timeline, and note where the header promises more."""
        self._timeline = timeline
        self.time_note = ''
        promised, found = self.header.video_duration, timeline.duration
        # FLV does not say how long the last frame is shown
        slack = max(_DURATION_SLACK, timeline.longest_step)
        if (
            not timeline
            or promised - found <= slack
            or self._others_go_on(promised)
        ):
            return
        self.time_note = (
            f'the header promises {promised:.1f} seconds, but the video ends '
            f'at {found:.1f}'
        )

    def _others_go_on(self, promised: float) -> bool:
        """Whether sound or the like lasts as long as the header says."""
        with open_container(self.source, self.path) as container:
            video = video_stream(container)
            ends = [0.0]
            for packet in container.demux():
                self._step()
                if packet.stream is not video and packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    ends.append(float(end * packet.time_base))
            return max(ends) > promised - _DURATION_SLACK

    def _collect(
        self, frames: Iterator[tuple[int, Any]], each: EachFrame | None
    ) -> dict[int, np.ndarray]:
        """Convert frames, and keep them or what is made of them."""
        convert = _Converter(self._size, self.path)
        kept: dict[int, np.ndarray] = {}
        for number, frame in frames:
            image = convert(frame, self.orientation())
            kept[number] = image if each is None else each(number, image)
        return kept

    def _seek(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Decode from key frames on; ends where that is not sure."""
        import av

        if not self.header.is_mov_or_matroska:
            return
        packets = self.packets()
        if not packets.is_trusted or max(indices) >= packets.num_packets:
            return
        times = {packets.times[index]: index for index in indices}
        groups = packets.group_by_key(list(times))
        try:
            if self._begins_right is None and packets.keys[0] not in groups:
                # a decoder that leaves out the first frame shifts all others
                first = self._decode_until(packets, packets.keys[0], set())
                self._begins_right = bool([self._look_at(x) for _, x in first])
            if self._begins_right is False:
                return
            for key, wanted in groups.items():
                missing = set(wanted)
                for time, frame in self._decode_until(packets, key, missing):
                    if key == packets.keys[0]:
                        self._look_at(frame)
                    if time in times:
                        missing.remove(time)
                        yield times[time], frame
                if missing:
                    return
        except (av.FFmpegError, ValueError):
            return  # decoding in order tells how far the file goes

    def _look_at(self, frame: Any) -> Any:
        """Learn from the first frame of the file how all are turned.

        A stream may say it at some of its frames only.
        """
        if self._orientation is None:
            self._orientation = Orientation.of_frame(frame)
            if self.follows_release and self._orientation != Orientation():
                # a second frame tells whether the container says it
                two = islice(self.decode(), 2)
                self._orientation = Orientation.of_release(*two)
            aspect = self.header.pixel_aspect
            swaps = self._orientation.swaps_sides
            self.pixel_aspect = 1 / aspect if swaps else aspect
        return frame

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
            self._step()
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

    def orientation(self) -> Orientation:
        """How all frames are turned; known since the first was decoded."""
        assert self._orientation is not None
        return self._orientation

    def _read_in_order(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Decode from the first frame on, and compare with the timeline."""
        wanted, last = set(indices), max(indices)
        planned = self._timeline
        frames = self._clock().pair(self.decode())
        self._decoded = ticks = []
        frame = None
        for number, (tick, frame) in enumerate(frames):
            self._look_at(frame)
            ticks.append(tick)
            if planned is not None and planned.ticks[number : number + 1] != [
                tick
            ]:
                self._measure(ticks, frame, frames)
                raise VideoTimelineError(
                    f'{self.path}: frame {number} is shown at another time '
                    'than the packets of the file say.'
                )
            if number in wanted:
                yield number, frame
            if number == last:
                return
        error = self._ended(len(ticks), last)
        self._measure(ticks, frame, frames)
        raise error

    def _measure(
        self, ticks: list[int], last: Any, frames: Iterator[tuple[int, Any]]
    ) -> None:
        """Complete the timeline by decoding the rest."""
        for tick, frame in frames:
            ticks.append(tick)
            last = frame
        plan = self.packets().timeline
        # releases of PyAV before 15 do not say how long a frame is shown
        duration = getattr(last, 'duration', None)
        if plan.ticks[-1:] == ticks[-1:]:
            duration = plan.end - plan.ticks[-1] if ticks else None
        self._set_timeline(self._clock().timeline(ticks, duration))
        self.num_frames = len(ticks)

    def decode(self) -> Iterator[Any]:
        """Yield all frames in order of display, as PyAV's objects.

        Raises:
            VideoReadError: If decoding fails before the end.
        """
        import av

        with self._open() as container:
            try:
                stream = video_stream(container)
                self.decoder = stream.codec_context
                late = self.header.container == 'avi'
                if self._index is not None:
                    late = self._index.has_decoding_times
                for frame in decode_in_order(
                    container, stream, has_decoding_times=late
                ):
                    self._step()
                    yield frame
            except (av.FFmpegError, ValueError) as err:
                raise VideoReadError(
                    f'{self.path}: decoding failed ({err}). Copy or encode '
                    'the file again, or leave it out.'
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


def decode_in_order(
    container: Any, stream: Any, *, has_decoding_times: bool
) -> Iterator[Any]:
    """Decode a stream, and put the times of its frames in order.

    AVI, and what was made of it, has times of packets alone, which the decoder
    hands on with the frames. Where these have another order than the packets
    (B-frames), each frame gets the earliest time left.
    """
    times: list[int] = []
    for packet in container.demux(stream):
        if has_decoding_times and packet.pts is not None:
            heapq.heappush(times, packet.pts)
        for frame in packet.decode():
            if times:
                frame.pts = heapq.heappop(times)
            yield frame
        if len(times) > _MOST_HELD_BACK:  # a packet gave no frame
            heapq.heappop(times)


def describe_colours(frame: Any) -> str:
    """Name matrix and range of a decoded frame: ``'BT.709, full range'``."""
    number = int(frame.colorspace)
    known = number < len(_MATRICES)
    matrix = _MATRICES[number] if known else f'number {number}'
    full = int(frame.color_range) == _FULL_RANGE
    return f'{matrix}, {"full" if full else "limited"} range'


class _Converter:
    """Convert frames to RGB, all to the size that the header states.

    A stream may change its size; batches need one, whatever is asked for.
    """

    def __init__(self, size: dict[str, int], path: str) -> None:
        self._size = size
        self._path = path

    def __call__(self, frame: Any, orientation: Orientation) -> np.ndarray:
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
        return orientation.apply(image)


def _stack(kept: dict[int, np.ndarray], indices: Sequence[int]) -> np.ndarray:
    """Put frames into one array, and let go of each."""
    uses = Counter(indices)
    first = kept[indices[0]]
    stacked = np.empty((len(indices), *first.shape), first.dtype)
    for place, index in enumerate(indices):
        stacked[place] = kept[index]
        uses[index] -= 1
        if not uses[index]:
            del kept[index]
    return stacked


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
