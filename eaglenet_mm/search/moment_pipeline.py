"""Reading the frames of one video, whole or in segments, in one pass."""

from __future__ import annotations

import copy
import io
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from eaglenet_mm.datasets.transforms import (
    DecodeFrames,
    SampleFrames,
    TokenizeCaptions,
    clock_times,
)
from eaglenet_mm.datasets.transforms.open_video import closed_on_error
from eaglenet_mm.datasets.video_readers import (
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoSamplingError,
    VideoTimelineError,
    VideoTimeoutError,
)
from eaglenet_mm.registry import SCOPE, TRANSFORMS
from eaglenet_mm.search.video_files import cut_segments

#: Segments that are passed on together, and seconds of reading after which
#: those that are there are passed on. A process that dies loses no more.
_SEGMENTS_AT_ONCE = 8
_SECONDS_AT_ONCE = 5
#: Frames a second, of which some are chosen, where a config takes every one.
_EVERY_FRAME = 30
#: Times that a file may turn out to be of another length.
_MOST_SURPRISES = 3
#: How often all of a damaged file may be decoded to get past the damage.
_MOST_PASSES = 10
#: Frames that may be decoded to no avail without a second thought.
_FEW_FRAMES = 500
#: Lost parts of a file, and reasons, that are named.
_NAMED_SPANS = 3
_NAMED_REASONS = 2
_THUMBNAIL_PIXELS = 160

Span = tuple[float, float]


@dataclass
class ReadMoments:
    """Frames of a video, or of some of its segments.

    Args:
        spans (list[Span]): First second and end of each that was read.
        frames (list[np.ndarray]): As the pipeline packs them, uint8, shape
            ``(n, 3, H, W)``.
        frame_times (list[list[float]]): Seconds at which they are shown.
        thumbnails (list[bytes]): JPEGs of their middle frames.
        duration (float): Of the whole video, in seconds.
        error (str): Why some could not be read, or that the video ends
            before its header says; empty if all is well.
    """

    spans: list[Span] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    frame_times: list[list[float]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    duration: float = 0.0
    error: str = ''

    def part(self, start: int, end: int) -> ReadMoments:
        """Take some of them."""
        return ReadMoments(
            self.spans[start:end],
            self.frames[start:end],
            self.frame_times[start:end],
            self.thumbnails[start:end],
            self.duration,
            self.error,
        )

    def append(
        self, span: Span, results: dict[str, Any], thumbnail: bytes
    ) -> None:
        """Add one."""
        self.spans.append(span)
        # an array: tensors would go to another process through a socket,
        # whose path is too long for the system where that of TMPDIR is
        self.frames.append(results['inputs']['frames'].numpy())
        self.frame_times.append(list(results['frame_times']))
        self.thumbnails.append(thumbnail)


class MomentPipeline:
    """Reads one file at a time as a test does, in this process."""

    def __init__(self, pipeline: Sequence[dict]) -> None:
        built = [TRANSFORMS.build({'_scope_': SCOPE, **t}) for t in pipeline]
        self.transforms = [
            transform
            for transform in built
            if not isinstance(transform, TokenizeCaptions)
        ]
        places = [
            place
            for place, transform in enumerate(self.transforms)
            if isinstance(transform, DecodeFrames)
        ]
        if len(places) != 1:
            raise ValueError(
                'The pipeline of the config must have one DecodeFrames to '
                f'read videos, but it has {len(places)}. Take a config that '
                'reads videos.'
            )
        self._place = places[0]
        self.decode: DecodeFrames = self.transforms[self._place]

    def read(self, path: str, span: Span | None) -> ReadMoments:
        """Read a video, or a part of it, as the config says."""
        found = ReadMoments()
        try:
            self._read(path, span, found)
        # also what a transform makes of an odd video: one file must not end
        # the indexing of all others
        except Exception as err:  # noqa: BLE001
            found.error = _describe(err, path)
        return found

    def _read(self, path: str, span: Span | None, found: ReadMoments) -> None:
        results = _item(path, span)
        with closed_on_error(results):
            for transform in self.transforms[: self._place]:
                results = transform(results)
            reader: VideoReader = results['video_reader']
            thumbnail = _Thumbnail(results)
            # before it is closed; decoding may put it right
            found.duration = reader.timeline.duration
            results = self.decode.decode(results, thumbnail)
        found.duration = reader.timeline.duration
        found.error = reader.time_note
        start, end = span or (None, None)
        if end is None:
            end = max(found.duration, results['frame_times'][-1])
        found.append((start or 0.0, end), self.finish(results), thumbnail.jpeg)

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Do what the pipeline does behind decoding."""
        times = results['frame_times']
        for transform in self.transforms[self._place + 1 :]:
            results = transform(results)
        return {**results, 'frame_times': times}

    def read_segments(
        self, path: str, segment: float
    ) -> Generator[ReadMoments, None, ReadMoments]:
        """Read a video in segments, by the clock, in one pass.

        Yields some of them as soon as they are read, and returns the last
        ones, with the reason why others could not be.
        """
        found, begun = ReadMoments(), time.monotonic()
        going = _SegmentPass(self, path, segment)
        with closing(going.moments()) as moments:
            for moment in moments:
                found.append(*moment)
                found.duration = going.duration
                if (
                    len(found.spans) == _SEGMENTS_AT_ONCE
                    or time.monotonic() - begun >= _SECONDS_AT_ONCE
                ):
                    yield found
                    found, begun = ReadMoments(), time.monotonic()
        found.duration, found.error = going.duration, going.error
        return found

    def open(self, path: str) -> tuple[dict[str, Any], list[Callable]]:
        """Open a video, and give the transforms that choose its frames.

        They go by the clock, for segments.
        """
        results = _item(path, None)
        before = self.transforms[: self._place]
        for place, transform in enumerate(before):
            results = transform(results)
            if 'video_reader' in results:
                return results, list(map(_by_the_clock, before[place + 1 :]))
        raise ValueError(
            'The pipeline of the config opens no video before DecodeFrames. '
            'Put OpenVideo at its beginning.'
        )


class _Thumbnail:
    """A small JPEG of the middle frame, made while frames are read."""

    def __init__(self, results: dict[str, Any]) -> None:
        self._results = results
        self.jpeg = b''

    def __call__(self, number: int, frame: np.ndarray) -> None:
        """Look at a frame, shape ``(h, w, 3)``."""
        # chosen anew where a file turns out to be shorter
        chosen = self._results['frame_indices']
        if number == chosen[len(chosen) // 2]:
            image = Image.fromarray(frame)
            image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
            buffer = io.BytesIO()
            image.save(buffer, 'JPEG', quality=80)
            self.jpeg = buffer.getvalue()


class _Segment:
    """A segment whose frames come in."""

    def __init__(self, span: Span, results: dict[str, Any]) -> None:
        self.span = span
        self.results = results
        self.indices: list[int] = list(results['frame_indices'])
        self.missing = set(self.indices)
        self.thumbnail = _Thumbnail(results)
        self._pictures: dict[int, np.ndarray] = {}

    def take(self, number: int, frame: np.ndarray, small: np.ndarray) -> None:
        self.thumbnail(number, frame)
        self._pictures[number] = small
        self.missing.discard(number)

    def complete(self, reader: VideoReader) -> dict[str, Any]:
        """What decoding alone would have made of it."""
        results = self.results
        for key in ('video_reader', 'frame_sampler'):
            results.pop(key, None)
        results['frames'] = np.stack([self._pictures[i] for i in self.indices])
        results['frame_times'] = clock_times(reader, results)
        results['pixel_aspect'] = reader.pixel_aspect
        results['num_frames_found'] = len(self.indices)
        return results


class _SegmentPass:
    """One video on its way through a pipeline in segments."""

    def __init__(
        self, pipeline: MomentPipeline, path: str, segment: float
    ) -> None:
        self._pipeline = pipeline
        self._path = path
        self._segment = segment
        self._done = 0.0  # seconds
        self._num_finished = 0
        self._last_frame = -1
        self._lost = _LostSpans()
        self.duration = 0.0
        self.error = ''

    def moments(
        self,
    ) -> Generator[tuple[Span, dict[str, Any], bytes], None, None]:
        """Yield segments, what the pipeline made of them, and thumbnails."""
        try:
            opened, choosing = self._pipeline.open(self._path)
            with opened['video_reader'] as reader:
                yield from self._read(reader, opened, choosing)
        # also what a transform makes of an odd video: one file must not end
        # the indexing of all others
        except Exception as err:  # noqa: BLE001
            words = _describe(err, self._path)
            if self._done:
                self._lost.add(self._done, None, words)
            else:
                self.error = words
        self.error = str(self._lost) or self.error

    def _read(
        self,
        reader: VideoReader,
        opened: dict[str, Any],
        choosing: Sequence[Callable],
    ) -> Iterator[tuple[Span, dict[str, Any], bytes]]:
        """Read to the end, anew where the file is not as it says."""
        surprises, most_progress = 0, -1
        segments = self._choose(reader, opened, choosing)
        while segments:
            try:
                yield from self._stream(reader, segments)
            except (VideoEndError, VideoTimelineError):
                surprises += 1
                if surprises > _MOST_SURPRISES:
                    raise
                segments = self._choose(reader, opened, choosing)
            except VideoReadError as err:
                if not segments:
                    raise
                start, end = segments.popleft().span
                # where readers seek, what lies behind damage can be read; in
                # order, they would come no further
                gives_up = isinstance(err, VideoTimeoutError)
                if most_progress < 0 and segments and not gives_up:
                    gives_up = not self._seeks(reader)
                    passes = _MOST_PASSES * len(reader.timeline)
                    most_progress = reader.progress + passes
                gives_up = gives_up or reader.progress > most_progress
                rest = gives_up and bool(segments)
                words = _describe(err, self._path)
                self._lost.add(start, None if rest else end, words)
                if gives_up:
                    break
                self._done = end
        self.error = reader.time_note
        if not self._num_finished and not self.error:
            self.error = 'no frame of it is shown.'

    def _seeks(self, reader: VideoReader) -> bool:
        """Whether frames are read without all those before them."""
        if self._last_frame < _FEW_FRAMES:
            return True  # or it costs little
        before = reader.progress
        frames: Any = reader.stream([self._last_frame])
        try:
            with closing(frames):
                next(frames)
        except VideoReadError:
            return False
        # from the key frame before it
        return reader.progress - before < 0.75 * self._last_frame

    def _choose(
        self,
        reader: VideoReader,
        opened: dict[str, Any],
        choosing: Sequence[Callable],
    ) -> deque[_Segment]:
        """Cut what is not done yet; segments without a frame are left out."""
        segments: deque[_Segment] = deque()
        timeline = reader.timeline
        self.duration = timeline.duration
        for start, end in cut_segments(
            timeline.duration, self._segment, begin=timeline.begin
        ):
            if end <= self._done:
                continue
            span = max(start, self._done), end
            results = {**opened, 'start': span[0], 'end': span[1]}
            try:
                for transform in choosing:
                    results = transform(results)
            except VideoSamplingError:
                continue
            segments.append(_Segment(span, results))
        return segments

    def _stream(
        self, reader: VideoReader, segments: deque[_Segment]
    ) -> Iterator[tuple[Span, dict[str, Any], bytes]]:
        """Decode what segments need, and take away those that are done."""
        if not segments:
            return
        users: dict[int, list[_Segment]] = {}
        for segment in segments:
            for number in segment.missing:
                users.setdefault(number, []).append(segment)
        frames: Any = reader.stream(sorted(users))
        with closing(frames):
            for number, frame in frames:
                self._last_frame = number
                small = self._pipeline.decode.finish(frame, reader)
                for segment in users.pop(number):
                    segment.take(number, frame, small)
                while segments and not segments[0].missing:
                    segment = segments.popleft()
                    self._done = segment.span[1]
                    self._num_finished += 1
                    results = self._pipeline.finish(segment.complete(reader))
                    yield segment.span, results, segment.thumbnail.jpeg


class _LostSpans:
    """Parts of a video that could not be read, and why."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float | None]] = []
        self._reasons: dict[str, None] = {}

    def add(self, start: float, end: float | None, reason: str) -> None:
        """Add a part behind those before; ``end`` is None for the rest."""
        if self._spans and self._spans[-1][1] == start:
            start = self._spans.pop()[0]
        self._spans.append((start, end))
        self._reasons[reason] = None

    def __str__(self) -> str:
        if not self._spans:
            return ''
        named = [
            f'{start:g} to {end:g} s'
            for start, end in self._spans
            if end is not None
        ]
        more = len(named) - _NAMED_SPANS
        if more > 0:
            named[_NAMED_SPANS:] = [f'{more} more part{"s" * (more > 1)}']
        start, end = self._spans[-1]
        if end is None:
            named.append(f'from {start:g} s on')
        reasons = ' '.join(list(self._reasons)[:_NAMED_REASONS])
        return f'{", ".join(named)}: {reasons}'


def _by_the_clock(transform: Callable) -> Callable:
    """Make a transform choose frames by the clock."""
    if not isinstance(transform, SampleFrames) or transform.mode == 'clean':
        return transform
    transform = copy.copy(transform)
    transform.mode = 'clean'
    transform.fps = transform.fps or _EVERY_FRAME
    return transform


def _item(path: str, span: Span | None) -> dict[str, Any]:
    start, end = span or (None, None)
    return dict(video_id=path, video=path, start=start, end=end)


def _describe(err: Exception, path: str) -> str:
    """Say what is wrong, without the name of the file, which is known."""
    words = str(err).removeprefix(f"Video '{path}': ")
    words = words.removeprefix(f"Video '{path}' ({path}): ")
    words = words.removeprefix(f'{path}: ')
    if isinstance(err, VideoReadError | FileNotFoundError):
        return words
    return f'{type(err).__name__}: {words}'
