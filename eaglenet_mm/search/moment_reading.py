"""Reading the frames of videos, whole or in segments, in one pass."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from eaglenet_mm.datasets.isolated_workers import run_isolated
from eaglenet_mm.datasets.transforms import (
    DecodeFrames,
    TokenizeCaptions,
    clock_times,
)
from eaglenet_mm.datasets.transforms.open_video import closed_on_error
from eaglenet_mm.datasets.video_readers import (
    VideoEndError,
    VideoReadError,
    VideoSamplingError,
    VideoTimelineError,
    VideoTimeoutError,
    reading_progress,
)
from eaglenet_mm.datasets.windows import by_the_clock
from eaglenet_mm.registry import SCOPE, TRANSFORMS
from eaglenet_mm.search.segments import SHOTS, cut_segments, find_shots

#: Segments that are passed on together, and seconds of reading after which
#: those that are there are passed on. A process that dies loses no more.
_SEGMENTS_AT_ONCE = 8
_SECONDS_AT_ONCE = 5
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
#: A piece of a video file: its path, and what to read of it if not all.
Piece = tuple[str, Span | None]


@dataclass
class ReadMoment:
    """Frames of a video or segment: uint8, shape ``(n, 3, H, W)``."""

    span: Span  # first second and end
    frames: np.ndarray
    times: list[float]  # seconds at which the frames are shown
    thumbnail: bytes  # JPEG of the middle frame


@dataclass
class ReadMoments:
    """A video, or some of its segments; why others could not be read."""

    moments: list[ReadMoment] = field(default_factory=list)
    duration: float = 0.0  # of the whole video
    error: str = ''  # also where it ends before its header says


class MomentReader:
    """Reads videos as a test does, whole or in segments.

    ``segment`` and ``overlap`` are as in
    :func:`~eaglenet_mm.search.segments.check_segment`. In ``num_workers``
    other processes, or with 0 in this one; there, reading a video may stand
    still for ``time_limit`` seconds, 0 for no limit.
    """

    def __init__(
        self,
        pipeline: Sequence[dict],
        *,
        segment: float | str = 0.0,
        overlap: float = 0.0,
        num_workers: int = 1,
        time_limit: float = 300.0,
    ) -> None:
        self.segment = segment
        self.overlap = overlap
        self.num_workers = num_workers
        self.time_limit = time_limit
        self.transforms = [
            TRANSFORMS.build({'_scope_': SCOPE, **step}) for step in pipeline
        ]
        #: None in a pipeline without captions.
        self.tokenizer: Any = None
        self.before: list[Any] = []  # decoding
        self._behind: list[Any] = []
        decoders: list[DecodeFrames] = []
        for transform in self.transforms:
            if isinstance(transform, TokenizeCaptions):
                self.tokenizer = transform
            elif isinstance(transform, DecodeFrames):
                decoders.append(transform)
            else:
                (self._behind if decoders else self.before).append(transform)
        if len(decoders) != 1:
            raise ValueError(
                'The pipeline of the config must have one DecodeFrames to '
                f'read videos, but it has {len(decoders)}. Take a config that '
                'reads videos.'
            )
        self.decode = decoders[0]

    def read(
        self, pieces: Iterable[str] | Mapping[str, Piece]
    ) -> Generator[tuple[str, ReadMoments, bool], None, None]:
        """Read files, or pieces of files by names, each in one pass.

        Segments go by the clock, whatever the config says; some are passed on
        while the rest of a file is read. Yields a name, what was read, and
        whether it is the last of it, in the order in which it is finished.
        """
        if not isinstance(pieces, Mapping):
            pieces = {path: (path, None) for path in pieces}
        names, durations = list(pieces), dict.fromkeys(pieces, 0.0)
        outcomes = run_isolated(
            self._read,
            list(pieces.values()),
            num_workers=self.num_workers,
            time_limit=self.time_limit,
            progress=reading_progress,
        )
        with closing(outcomes):
            for outcome in outcomes:
                name, found = names[outcome.index], outcome.value
                if outcome.kind == 'hang':
                    found = ReadMoments(error=f'reading it {outcome.detail}')
                elif outcome.kind == 'crash':
                    words = f'{outcome.detail} while reading it'
                    found = ReadMoments(error=words)
                # what a process that died had told before
                durations[name] = found.duration or durations[name]
                found.duration = durations[name]
                yield name, found, outcome.kind != 'part'

    def finish(
        self, results: dict[str, Any], span: Span, thumbnail: bytes
    ) -> ReadMoment:
        """Do what the pipeline does behind decoding."""
        times = list(results['frame_times'])
        for transform in self._behind:
            results = transform(results)
        # an array: tensors would go to another process through a socket,
        # whose path is too long for the system where that of TMPDIR is
        frames = results['inputs']['frames'].numpy()
        return ReadMoment(span, frames, times, thumbnail)

    def read_black(self) -> ReadMoment:
        """Give a black frame as if it was read, for its shape."""
        results = _item('')
        results.update(
            frames=np.zeros((1, 64, 64, 3), np.uint8),
            frame_times=[0.0],
            frame_indices=[0],
            pixel_aspect=1,
        )
        if self.decode.resize is not None:
            results = self.decode.resize(results)
        return self.finish(results, (0.0, 0.0), b'')

    def _read(self, piece: Piece) -> Generator[ReadMoments, None, ReadMoments]:
        """Yield what is read of a file meanwhile, and return the rest."""
        path, span = piece
        if self.segment and span is None:
            return (yield from _SegmentPass(self, path).read())
        found = ReadMoments()
        try:
            self._read_whole(path, span, found)
        # also what a transform makes of an odd video: one file must not end
        # the indexing of all others
        except Exception as err:  # noqa: BLE001
            found.error = _describe(err, path)
        return found

    def _read_whole(
        self, path: str, span: Span | None, found: ReadMoments
    ) -> None:
        """Read a video, or a part of it, as the config says."""
        results, thumbnail = _item(path, span), b''

        def look(number: int, frame: np.ndarray) -> None:
            nonlocal thumbnail
            # chosen anew where a file turns out to be shorter
            if number == _middle(results['frame_indices']):
                thumbnail = _jpeg(frame)

        with closed_on_error(results):
            for transform in self.before:
                results = transform(results)
            reader: Any = results['video_reader']
            # before it is closed; decoding may put it right
            found.duration = reader.timeline.duration
            results = self.decode.decode(results, look)
        found.duration = reader.timeline.duration
        found.error = reader.time_note
        start, end = span or (None, None)
        if end is None:
            end = max(found.duration, results['frame_times'][-1])
        found.moments.append(
            self.finish(results, (start or 0.0, end), thumbnail)
        )


@dataclass
class _Segment:
    """A segment whose frames come in."""

    span: Span
    results: dict[str, Any]
    missing: set[int]
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    thumbnail: bytes = b''


class _SegmentPass:
    """One video on its way through a pipeline in segments."""

    def __init__(self, pipeline: MomentReader, path: str) -> None:
        self._pipeline = pipeline
        self._path = path
        self._opened: dict[str, Any] = _item(path)
        self._choosing: list[Callable] = []
        self._reader: Any = None
        self._done = 0.0  # seconds
        self._num_finished = 0
        self._last_frame = -1
        self._shots: list[Span] | None = None
        self._lost: list[tuple[float, float | None]] = []  # None: the rest
        self._reasons: dict[str, None] = {}
        self._duration = 0.0
        self._error = ''

    def read(self) -> Generator[ReadMoments, None, ReadMoments]:
        """Yield some segments as soon as they are read, return the last."""
        found, begun = ReadMoments(), time.monotonic()
        try:
            for moment in self._moments():
                found.moments.append(moment)
                if (
                    len(found.moments) == _SEGMENTS_AT_ONCE
                    or time.monotonic() - begun >= _SECONDS_AT_ONCE
                ):
                    found.duration = self._duration
                    yield found
                    found, begun = ReadMoments(), time.monotonic()
        except Exception as err:  # noqa: BLE001 - as for whole videos
            words = _describe(err, self._path)
            if self._done:
                self._lose(self._done, None, words)
            else:
                self._error = words
        found.duration = self._duration
        found.error = self._describe_lost() or self._error
        return found

    def _moments(self) -> Iterator[ReadMoment]:
        """Read to the end, anew where the file is not as it says."""
        self._open()
        surprises, most_progress = 0, -1
        with self._reader as reader:
            segments = self._choose()
            while segments:
                before, frame = reader.progress, self._last_frame
                try:
                    yield from self._stream(segments)
                except (VideoEndError, VideoTimelineError):
                    surprises += 1
                    if surprises > _MOST_SURPRISES:
                        raise
                    segments = self._choose()
                except VideoReadError as err:
                    if not segments:
                        raise
                    start, end = segments.popleft().span
                    gives_up = isinstance(err, VideoTimeoutError)
                    if not gives_up:
                        progress = reader.progress
                        if most_progress < 0:
                            passes = _MOST_PASSES * len(reader.timeline)
                            most_progress = progress + passes
                        # where readers seek, what lies behind damage can be
                        # read; in order, all before it is decoded in vain
                        in_order = progress - before > 0.75 * frame
                        is_stuck = frame == self._last_frame > _FEW_FRAMES
                        gives_up = progress > most_progress or (
                            is_stuck and in_order
                        )
                    rest = gives_up and bool(segments)
                    words = _describe(err, self._path)
                    self._lose(start, None if rest else end, words)
                    if gives_up:
                        break
                    self._done = end
            self._error = reader.time_note
        if not self._num_finished and not self._error:
            self._error = 'no frame of it is shown.'

    def _open(self) -> None:
        """Open the video, and find what chooses its frames, by the clock."""
        before = self._pipeline.before
        for place, transform in enumerate(before, start=1):
            self._opened = transform(self._opened)
            if 'video_reader' in self._opened:
                self._reader = self._opened['video_reader']
                self._choosing = list(map(by_the_clock, before[place:]))
                return
        raise ValueError(
            'The pipeline of the config opens no video before DecodeFrames. '
            'Put OpenVideo at its beginning.'
        )

    def _choose(self) -> deque[_Segment]:
        """Cut what is not done yet; segments without a frame are left out."""
        segments: deque[_Segment] = deque()
        spans = self._cut()  # which may correct the duration
        self._duration = self._reader.timeline.duration
        overlap = self._pipeline.overlap
        for start, end in spans:
            if end <= self._done:
                continue
            span = (start if overlap else max(start, self._done)), end
            results = {**self._opened, 'start': span[0], 'end': span[1]}
            try:
                for transform in self._choosing:
                    results = transform(results)
            except VideoSamplingError:
                continue
            missing = set(results['frame_indices'])
            segments.append(_Segment(span, results, missing))
        return segments

    def _cut(self) -> list[Span]:
        segment = self._pipeline.segment
        if segment != SHOTS:
            return cut_segments(
                self._reader, float(segment), overlap=self._pipeline.overlap
            )
        if self._shots is None:
            self._shots = find_shots(self._reader)
        # the video may have turned out to be shorter or longer since
        end = self._reader.timeline.duration
        starts = [start for start, _ in self._shots if start < end]
        return list(pairwise([*starts, end]))

    def _stream(self, segments: deque[_Segment]) -> Iterator[ReadMoment]:
        """Decode what segments need, and take away those that are done."""
        users: dict[int, list[_Segment]] = {}
        for segment in segments:
            for number in segment.missing:
                users.setdefault(number, []).append(segment)
        with closing(self._reader.stream(sorted(users))) as frames:
            for number, frame in frames:
                self._last_frame = number
                small = self._pipeline.decode.finish(frame, self._reader)
                for segment in users.pop(number):
                    if number == _middle(segment.results['frame_indices']):
                        segment.thumbnail = _jpeg(frame)
                    segment.pictures[number] = small
                    segment.missing.discard(number)
                while segments and not segments[0].missing:
                    segment = segments.popleft()
                    self._done = segment.span[1]
                    self._num_finished += 1
                    yield self._complete(segment)

    def _complete(self, segment: _Segment) -> ReadMoment:
        """Do with a segment what decoding alone would have done."""
        results = segment.results
        for key in ('video_reader', 'frame_sampler'):
            results.pop(key, None)
        pictures = [segment.pictures[i] for i in results['frame_indices']]
        results.update(
            frames=np.stack(pictures),
            frame_times=clock_times(self._reader, results),
            pixel_aspect=self._reader.pixel_aspect,
            num_frames_found=len(pictures),
        )
        return self._pipeline.finish(results, segment.span, segment.thumbnail)

    def _lose(self, start: float, end: float | None, reason: str) -> None:
        """Note a part behind those before that could not be read."""
        if self._lost and start <= (self._lost[-1][1] or 0.0):
            start = self._lost.pop()[0]
        self._lost.append((start, end))
        self._reasons[reason] = None

    def _describe_lost(self) -> str:
        if not self._lost:
            return ''
        named = [
            f'{start:g} to {end:g} s'
            for start, end in self._lost
            if end is not None
        ]
        more = len(named) - _NAMED_SPANS
        if more > 0:
            named[_NAMED_SPANS:] = [f'{more} more part{"s" * (more > 1)}']
        start, end = self._lost[-1]
        if end is None:
            named.append(f'from {start:g} s on')
        reasons = ' '.join(list(self._reasons)[:_NAMED_REASONS])
        return f'{", ".join(named)}: {reasons}'


def _item(path: str, span: Span | None = None) -> dict[str, Any]:
    start, end = span or (None, None)
    return dict(video_id=path, video=path, start=start, end=end)


def _middle(numbers: Sequence[int]) -> int:
    return numbers[len(numbers) // 2]


def _jpeg(frame: np.ndarray) -> bytes:
    """Make a small picture of a frame, shape ``(h, w, 3)``."""
    image = Image.fromarray(frame)
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=80)
    return buffer.getvalue()


def _describe(err: Exception, path: str) -> str:
    """Say what is wrong, without the name of the file, which is known."""
    words = str(err)
    for name in (f"Video '{path}'", f"Video '{path}' ({path})", path):
        words = words.removeprefix(f'{name}: ')
    if isinstance(err, VideoReadError | FileNotFoundError):
        return words
    return f'{type(err).__name__}: {words}'
