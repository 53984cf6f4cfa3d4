"""Reading the frames of videos and segments, in other processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.datasets.isolated_workers import Outcome, run_isolated
from eaglenet_mm.datasets.video_readers import reading_progress
from eaglenet_mm.search.moment_pipeline import (
    MomentPipeline,
    ReadMoments,
    Span,
)

__all__ = ['MomentReader', 'ReadMoments', 'pad_times']


class MomentReader:
    """Reads videos as a test does, whole or in segments.

    In ``num_workers`` other processes, or with 0 in this one; there, reading
    a video may stand still for ``time_limit`` seconds, 0 for no limit.
    """

    def __init__(
        self,
        pipeline: Sequence[dict],
        *,
        segment: float = 0.0,
        num_workers: int = 1,
        time_limit: float = 300.0,
    ) -> None:
        self.pipeline = MomentPipeline(pipeline)
        self.segment = segment
        self.num_workers = num_workers
        self.time_limit = time_limit

    def read(
        self, paths: Sequence[str]
    ) -> Generator[tuple[str, ReadMoments, bool], None, None]:
        """Read files, each in one pass.

        Segments go by the clock, whatever the config says; their frames are
        passed on while the rest of the file is read. Yields a file, frames
        of it, and whether they are its last: pieces of a file in their order,
        files as they are finished.
        """
        durations: dict[str, float] = {}
        with closing(self._run(self._read_file, paths)) as outcomes:
            for outcome in outcomes:
                path, is_last = paths[outcome.index], outcome.kind != 'part'
                found = _found(outcome)
                # what a process that died had told before
                found.duration = found.duration or durations.get(path, 0.0)
                durations[path] = found.duration
                yield path, found, is_last

    def read_pieces(
        self, tasks: Sequence[tuple[str, Span | None]]
    ) -> Generator[tuple[int, ReadMoments], None, None]:
        """Read videos and parts of videos, as the config says.

        Yields the number of a task and its frames, as tasks are finished.
        """
        with closing(self._run(self._read_task, tasks)) as outcomes:
            for outcome in outcomes:
                yield outcome.index, _found(outcome)

    def _run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> Generator[Outcome, None, None]:
        """Call a function for tasks, here or elsewhere."""
        return run_isolated(
            function,
            tasks,
            num_workers=self.num_workers,
            time_limit=self.time_limit,
            progress=reading_progress,
        )

    def _read_file(self, path: str) -> Any:
        if self.segment:
            return self.pipeline.read_segments(path, self.segment)
        return self.pipeline.read(path, None)

    def _read_task(self, task: tuple[str, Span | None]) -> ReadMoments:
        return self.pipeline.read(*task)


def _found(outcome: Outcome) -> ReadMoments:
    """What was read, or why nothing was."""
    if outcome.kind == 'hang':
        return ReadMoments(error=f'reading it {outcome.detail}')
    if outcome.kind == 'crash':
        return ReadMoments(error=f'{outcome.detail} while reading it')
    return outcome.value


def pad_times(
    times: Sequence[Sequence[float]], num_steps: int, num_frames: int
) -> Tensor:
    """Put times of the frames read into one tensor, NaN where padded.

    An encoder that makes fewer steps than it takes frames gets their mean
    times; seconds, float32, ``(n, num_steps)``.
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
