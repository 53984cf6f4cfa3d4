"""Reading the frames of videos and segments, in other processes."""

from __future__ import annotations

import io
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eaglenet_mm.datasets.isolated_workers import run_isolated
from eaglenet_mm.datasets.transforms import TokenizeCaptions
from eaglenet_mm.datasets.video_readers import VideoReadError, read_header
from eaglenet_mm.registry import SCOPE, TRANSFORMS

from .video_files import cut_segments

#: Segments read in one go: their frames are in memory together.
_SEGMENTS_AT_ONCE = 8
#: Files whose headers are read before their frames are.
_FILES_AT_ONCE = 64
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
        error (str): Why some could not be read; empty if all were.
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


class MomentReader:
    """Reads videos as a test does, whole or in segments.

    Args:
        pipeline (Sequence[dict]): Transforms of the test set.
        segment (float): Seconds of a segment; 0 for whole videos.
        num_workers (int): Processes that read; 0 reads in this one.
        time_limit (float): Seconds that reading one video (of long ones: 8
            segments) may take in a process of its own; 0 for no limit.
    """

    def __init__(
        self,
        pipeline: Sequence[dict],
        *,
        segment: float = 0.0,
        num_workers: int = 1,
        time_limit: float = 300.0,
    ) -> None:
        built = [TRANSFORMS.build({'_scope_': SCOPE, **t}) for t in pipeline]
        self.transforms = [
            transform
            for transform in built
            if not isinstance(transform, TokenizeCaptions)
        ]
        self.segment = segment
        self.num_workers = num_workers
        self.time_limit = time_limit

    def read(
        self, paths: Sequence[str]
    ) -> Generator[tuple[str, ReadMoments, bool], None, None]:
        """Read files.

        Args:
            paths (Sequence[str]): Different files.

        Yields:
            tuple[str, ReadMoments, bool]: A file, frames of it, and whether
            they are its last. Pieces of one file come in their order, files
            as they are finished.
        """
        size = _FILES_AT_ONCE if self.segment else len(paths)
        for first in range(0, len(paths), max(size, 1)):
            yield from self._read_group(paths[first : first + size])

    def _read_group(
        self, paths: Sequence[str]
    ) -> Generator[tuple[str, ReadMoments, bool], None, None]:
        tasks = list(self._plan(paths))
        pieces: dict[str, list[int]] = {}
        for number, (path, _) in enumerate(tasks):
            pieces.setdefault(path, []).append(number)
        held: dict[int, ReadMoments] = {}
        with closing(self.read_pieces(tasks)) as outcomes:
            for number, found in outcomes:
                held[number] = found
                path = tasks[number][0]
                while pieces[path] and pieces[path][0] in held:
                    ready = held.pop(pieces[path].pop(0))
                    yield path, ready, not pieces[path]

    def read_pieces(
        self, tasks: Sequence[tuple[str, list[Span] | None]]
    ) -> Generator[tuple[int, ReadMoments], None, None]:
        """Read parts of files.

        Args:
            tasks (Sequence[tuple[str, list[Span] | None]]): Files and what to
                read of them; None for the whole.

        Yields:
            tuple[int, ReadMoments]: Number of a task, and its frames, as
            tasks are finished.
        """
        with closing(self._run(self._read_one, tasks)) as outcomes:
            for number, found, trouble in outcomes:
                if found is None:
                    found = ReadMoments(error=f'reading it {trouble}')
                yield number, found

    def _run(
        self, function: Any, tasks: Sequence[Any]
    ) -> Generator[tuple[int, Any, str], None, None]:
        """Call a function for tasks; yield number, result, and trouble."""
        if not self.num_workers:
            for number, task in enumerate(tasks):
                yield number, function(task), ''
            return
        with closing(
            run_isolated(
                function,
                tasks,
                num_workers=self.num_workers,
                time_limit=self.time_limit,
            )
        ) as outcomes:
            for outcome in outcomes:
                yield outcome.index, outcome.value, outcome.detail

    def _plan(
        self, paths: Sequence[str]
    ) -> Iterator[tuple[str, list[Span] | None]]:
        """Cut files into what is read in one go."""
        if not self.segment:
            yield from ((path, None) for path in paths)
            return
        durations = {}
        for number, duration, _ in self._run(self._duration, paths):
            durations[paths[number]] = duration or 0.0
        for path in paths:
            if not durations[path]:  # reading it says what is wrong
                yield path, None
                continue
            spans = cut_segments(durations[path], self.segment)
            for start in range(0, len(spans), _SEGMENTS_AT_ONCE):
                yield path, spans[start : start + _SEGMENTS_AT_ONCE]

    def _duration(self, path: str) -> float:
        """Seconds of a video, 0 if it cannot be read."""
        try:
            duration = read_header(path).duration
            if duration and math.isfinite(duration):
                return duration
            results = self.transforms[0](_item(path, None))
            with results['video_reader'] as reader:
                return _seconds(reader)
        except Exception:  # noqa: BLE001 - reading it says what is wrong
            return 0.0

    def _read_one(self, task: tuple[str, list[Span] | None]) -> ReadMoments:
        """Read a video, or some of its segments."""
        path, spans = task
        found = ReadMoments()
        for span in spans if spans is not None else [None]:
            try:
                self._read_span(path, span, found)
            # also what a transform makes of an odd video: one file must not
            # end the indexing of all others
            except Exception as err:  # noqa: BLE001
                words = _describe(err, path)
                if span is not None:
                    words = f'{span[0]:g} to {span[1]:g} s: {words}'
                found.error = found.error or words
        return found

    def _read_span(
        self, path: str, span: Span | None, found: ReadMoments
    ) -> None:
        results = _item(path, span)
        decoded: np.ndarray | None = None
        for transform in self.transforms:
            results = transform(results)
            reader = results.get('video_reader')
            if reader is not None and not found.duration:
                found.duration = _seconds(reader)
            if decoded is None and 'frames' in results:
                # whole pictures for the thumbnail, before they are cut
                decoded = results['frames']
                times = results['frame_times']
        if decoded is None:
            raise ValueError(
                'The pipeline of the config has no DecodeFrames, so it reads '
                'no frames.'
            )
        # an array: tensors would go to the other process through a socket,
        # whose path is too long for the system where that of TMPDIR is
        found.frames.append(results['inputs']['frames'].numpy())
        found.frame_times.append(list(times))
        found.spans.append(span or (0.0, max(found.duration, times[-1])))
        found.thumbnails.append(_thumbnail(decoded[len(decoded) // 2]))


def pad_times(
    times: Sequence[Sequence[float]], num_steps: int, num_frames: int
) -> Tensor:
    """Put times into one tensor.

    Args:
        times (Sequence[Sequence[float]]): Seconds of the frames read.
        num_steps (int): Vectors ``F`` that the encoder makes of a video.
        num_frames (int): Frames that it takes, padding included.

    Returns:
        Tensor: The mean time of the frames of each vector, NaN where all are
        padding; float32, shape ``(n, F)``.
    """
    padded = torch.full((len(times), num_frames), float('nan'))
    for row, own in zip(padded, times, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.float32)[:num_frames]
    if num_steps == num_frames:
        return padded
    edges = [step * num_frames // num_steps for step in range(num_steps + 1)]
    return torch.stack(
        [
            padded[:, start : max(end, start + 1)].nanmean(dim=1)
            for start, end in pairwise(edges)
        ],
        dim=1,
    )


def _describe(err: Exception, path: str) -> str:
    """Say what is wrong, without the name of the file, which is known."""
    words = str(err).removeprefix(f"Video '{path}': ")
    words = words.removeprefix(f'({path}): ').removeprefix(f'{path}: ')
    if isinstance(err, VideoReadError | FileNotFoundError):
        return words
    return f'{type(err).__name__}: {words}'


def _item(path: str, span: Span | None) -> dict[str, Any]:
    start, end = span or (None, None)
    return dict(video_id=path, video=path, start=start, end=end)


def _seconds(reader: Any) -> float:
    if not reader.fps:
        return 0.0
    return float(reader.num_frames / reader.fps)


def _thumbnail(frame: np.ndarray) -> bytes:
    """Make a small JPEG of a frame, shape ``(H, W, 3)``."""
    image = Image.fromarray(frame)
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=80)
    return buffer.getvalue()
