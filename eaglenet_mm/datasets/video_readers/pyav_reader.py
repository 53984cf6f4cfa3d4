"""Exact video reader based on PyAV, for every container of FFmpeg."""

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

# Most frames a decoder may hold back for reordering: 16 in H.264.
_MOST_HELD_BACK = 16
# Colour matrices of ISO/IEC 23091-2 by number, and the number of full range.
_MATRICES = (
    *('RGB', 'BT.709', 'not stated', 'reserved', 'FCC', 'BT.601', 'BT.601'),
    *('SMPTE 240M', 'YCgCo', 'BT.2020', 'BT.2020 of constant luminance'),
)
_FULL_RANGE = 2
# Seconds by which a video may be shorter than its header claims, due to other
# streams and rounding.
_DURATION_SLACK = 1.0


class PyAVReader(VideoReader):
    """Exact reader that decodes from the key frame before each wanted frame.

    The time stamp of each frame is read from the packets, without decoding.
    Where these are unreliable (AVI, MPEG-TS, cut streams), or the decoder
    returns an unexpected time, the reader falls back to decoding from the
    first frame, which is exact for every file. Non-reference frames are
    decoded only if wanted; only returned frames are converted to RGB.

    Args:
        source (str | bytes): Path or content of the file.
        name (str): Name in messages. Default: the path.
        num_threads (int): Decoder threads, 0 for all cores. Default: 1, since
            loader workers already use the cores.
        on_step (Callable, optional): Called for each packet and frame; may
            raise to stop. Default: None.

    Attributes:
        header (VideoHeader): The header of the file.
        decoder (av.VideoCodecContext): Codec context of the last
            :meth:`decode`; None before.

    Raises:
        ImportError: If PyAV is missing.
        VideoReadError: If the file is not a video.
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
        self._decoded: list[int] = []  # ticks of frames decoded in order
        self._begins_right: bool | None = None
        self._orientation: Orientation | None = None
        self.decoder: Any = None
        stream = video_stream(self._container)
        # decoding may change the stream's size
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
        """Timeline: Display times, from the packets until decoded."""
        if self._timeline is None:
            self._set_timeline(self.packets().timeline)
        assert self._timeline is not None
        return self._timeline

    def measure(self) -> None:
        """Make the timeline exact; decodes all frames if packets do not do."""
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
        # once the timeline was used, sequential decoding is checked against it
        if len(self.timeline) > max(left):
            for number, frame in self._seek(indices):
                left.remove(number)
                yield number, convert(frame, self.orientation())
        if left:
            for number, frame in self._read_in_order(sorted(left)):
                yield number, convert(frame, self.orientation())

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Return display times, from decoded frames where possible."""
        if max(indices) < len(self._decoded):
            base = self._clock().time_base
            return [float(self._decoded[index] * base) for index in indices]
        return super().frame_times(indices)

    def _known_timeline(self) -> Timeline | None:
        if self._timeline is None and self._index and self._index.is_trusted:
            return self._index.timeline
        return self._timeline

    @property
    def has_variable_rate(self) -> bool:
        """bool: Whether frame intervals differ, as far as known."""
        if self._index is not None:
            return self._index.timeline.is_variable
        base = self._clock().time_base
        return Timeline(self._decoded, base, 0).is_variable

    def others_are_exact(self) -> bool:
        """Whether readers with their own seeking return the right frames.

        decord and torchcodec silently return wrong frames in AVI, MPEG-TS and
        MPEG-PS, after open GOPs, in fragmented or interlaced files and more.
        They are right if the packets identify all frames of a single
        progressive 8-bit stream in an unfragmented file that is rotated by
        quarter turns only.
        """
        header = self.header
        # formats with more bits per sample end in their byte order
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
        """Whether other readers orient and convert frames like this one."""
        first = list(islice(self.decode(), 2))
        if first:
            self._look_at(first[0])
        turned = {Orientation.of_frame(frame) for frame in first}
        return turned == {Orientation.of_release(*first)} and not any(
            bool(frame.interlaced_frame) for frame in first
        )

    def _keys_are_listed(self) -> bool:
        """Whether the index of an MP4 file lists all its key frames."""
        if 'mp4' not in self.header.container:
            return True
        entries = video_stream(self._container).index_entries
        listed = sum(bool(entry.is_keyframe) for entry in entries)
        return listed == len(self.packets().keys)

    def is_interlaced(self) -> bool:
        """Whether the first frame is interlaced."""
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
                    f'{self.path}: counting its frames failed ({err}). '
                    'Download or encode the file again.'
                ) from err
        return self._index

    def _clock(self) -> Clock:
        """The best known interpretation of time stamps."""
        return self._first_clock if self._index is None else self._index.clock

    def _step(self) -> None:
        """Count a packet or frame, for the enclosing reader too."""
        super()._step()
        if self._on_step is not None:
            self._on_step()

    def _set_timeline(self, timeline: Timeline) -> None:
        """Set the timeline; note if the video is shorter than the header."""
        self._timeline = timeline
        self.time_note = ''
        promised, found = self.header.video_duration, timeline.duration
        # FLV does not state the duration of the last frame
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
        """Whether another stream, such as audio, lasts as stated."""
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
        """Convert frames, and keep them or the results of ``each``."""
        convert = _Converter(self._size, self.path)
        kept: dict[int, np.ndarray] = {}
        for number, frame in frames:
            image = convert(frame, self.orientation())
            kept[number] = image if each is None else each(number, image)
        return kept

    def _seek(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Decode from key frames; stop early where that is unreliable."""
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
                # a decoder that drops the first frame shifts all others
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
            return  # sequential decoding finds out how far the file goes

    def _look_at(self, frame: Any) -> Any:
        """Take the orientation of the file from its first frame.

        A stream may state it for some frames only.
        """
        if self._orientation is None:
            self._orientation = Orientation.of_frame(frame)
            if self.follows_release and self._orientation != Orientation():
                # the second frame tells whether the container states it
                two = islice(self.decode(), 2)
                self._orientation = Orientation.of_release(*two)
            aspect = self.header.pixel_aspect
            swaps = self._orientation.swaps_sides
            self.pixel_aspect = 1 / aspect if swaps else aspect
        return frame

    def _decode_until(
        self, packets: PacketIndex, key: int, wanted: set[int]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the key frame and the wanted frames after it, with times.

        Stops early if the decoder returns something unexpected.
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
                    return  # the two fields may be in separate packets
                # seeking may land on an earlier key frame
                is_key = frame.pts in packets.key_set
                if is_first and not is_key:
                    return  # the decoder dropped the frame it started at
                is_first = False
                if frame.pts in wanted:
                    wanted.remove(frame.pts)
                    yield frame.pts, frame
                if not wanted or frame.pts > last:
                    return

    def orientation(self) -> Orientation:
        """The orientation of all frames, known once one was decoded."""
        assert self._orientation is not None
        return self._orientation

    def _read_in_order(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Decode from the first frame, checking against the timeline."""
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
                    'than its packets claim.'
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
        """Complete the timeline by decoding the remaining frames."""
        for tick, frame in frames:
            ticks.append(tick)
            last = frame
        plan = self.packets().timeline
        # PyAV before 15 does not give the duration of a frame
        duration = getattr(last, 'duration', None)
        if plan.ticks[-1:] == ticks[-1:]:
            duration = plan.end - plan.ticks[-1] if ticks else None
        self._set_timeline(self._clock().timeline(ticks, duration))
        self.num_frames = len(ticks)

    def decode(self) -> Iterator[Any]:
        """Yield all frames in display order, as PyAV objects.

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
                    f'{self.path}: decoding failed ({err}). Download or '
                    'encode the file again, or leave it out.'
                ) from err

    def _open(self) -> Any:
        """Open the file with the given number of decoder threads."""
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
    """Decode a stream, and sort the times of its frames.

    AVI, and files converted from it, have decoding times only, which the
    decoder passes on. If frames are reordered (B-frames), each frame gets the
    earliest remaining time.
    """
    times: list[int] = []
    for packet in container.demux(stream):
        if has_decoding_times and packet.pts is not None:
            heapq.heappush(times, packet.pts)
        for frame in packet.decode():
            if times:
                frame.pts = heapq.heappop(times)
            yield frame
        if len(times) > _MOST_HELD_BACK:  # some packet gave no frame
            heapq.heappop(times)


def describe_colours(frame: Any) -> str:
    """Describe the colours of a frame, as in ``'BT.709, full range'``."""
    number = int(frame.colorspace)
    known = number < len(_MATRICES)
    matrix = _MATRICES[number] if known else f'number {number}'
    full = int(frame.color_range) == _FULL_RANGE
    return f'{matrix}, {"full" if full else "limited"} range'


class _Converter:
    """Conversion of frames to RGB at the size stated in the header.

    A stream may change its size, but a batch needs one size.
    """

    def __init__(self, size: dict[str, int], path: str) -> None:
        self._size = size
        self._path = path

    def __call__(self, frame: Any, orientation: Orientation) -> np.ndarray:
        import av

        size = self._size
        if not all(size.values()):  # no size in the header
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
    """Stack frames, freeing each as soon as it is copied."""
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
    """Convert a frame without starting a thread per core.

    For small images, starting FFmpeg's threads costs more than the conversion
    (8.4 against 2.7 ms for 11 frames of 64 x 64). Older releases of PyAV do
    not have the option.
    """
    try:
        return frame.to_ndarray(format='rgb24', threads=1, **size)
    except TypeError:
        return frame.to_ndarray(format='rgb24', **size)
