"""What ``tools/index.py`` does: make an index, or bring it up to date."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eaglenet_mm.apis.own_videos import IndexingReport
from eaglenet_mm.apis.retrieval_inferencer import RetrievalInferencer
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.index_manifest import NAME
from eaglenet_mm.search.video_files import (
    FoundVideos,
    find_videos,
    tell_passed_over,
)
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable


def parse_seconds(text: str) -> float:
    """Read a length of time: ``10``, ``10s``, ``1.5m``.

    Raises:
        ValueError: If it is none, or not positive.
    """
    found = re.fullmatch(r'(\d+(?:\.\d*)?)\s*(s|m|)', text.strip())
    seconds = float(found[1]) * (60 if found[2] == 'm' else 1) if found else 0
    if not seconds:
        raise ValueError(
            f"A length of time is written as '10s' or '1.5m', not {text!r}."
        )
    return seconds


def update_index(
    videos: Sequence[str],
    folder: str | Path,
    *,
    model: str | os.PathLike | Config | None = None,
    weights: str | None = None,
    device: str | None = None,
    untrained: bool = False,
    num_workers: int = 2,
    video_batch: int = 1,
    segment: float | None = None,
    precision: str | None = None,
    retry: bool = False,
    prune: bool = False,
    repair: bool = False,
) -> tuple[VideoIndex, IndexingReport]:
    """Make an index of videos, or bring one up to date.

    Args:
        videos (Sequence[str]): Folders and files.
        folder (str | Path): The index.
        model (str | PathLike | Config, optional): Config; needed for a new
            index, else it is that of the index.
        weights (str, optional): Checkpoint; likewise.
        device (str, optional): See :class:`RetrievalInferencer`.
        untrained (bool): See :class:`RetrievalInferencer`.
        num_workers (int): Processes that read videos.
        video_batch (int): See :class:`RetrievalInferencer`.
        segment (float, optional): Seconds of a segment; default: those of
            the index, whole videos in a new one.
        precision (str, optional): Default: that of the index, 'float32' in
            a new one.
        retry (bool): Whether unchanged unreadable files are tried again.
        prune (bool): Whether files below ``videos`` that no longer exist are
            taken out.
        repair (bool): Whether to leave out what is damaged; those videos are
            read again.

    Returns:
        tuple[VideoIndex, IndexingReport]: The index, still open for writing,
        and what became of the files.

    Raises:
        FileNotFoundError, ValueError: If something is missing or does not
            fit; nothing has changed then.
    """
    folder = Path(folder)
    exists = (folder / NAME).exists()
    found = _find(videos, may_be_empty=exists and prune)
    settings: dict[str, Any] = dict(
        device=device, num_workers=num_workers, video_batch=video_batch
    )
    if exists:
        index = VideoIndex.load(folder, writable=True, repair=repair)
        try:
            _check_settings(index, segment, precision)
            if untrained:
                settings['untrained'] = True
            inferencer = RetrievalInferencer.of_index(
                index, weights, model=model, **settings
            )
        except BaseException:
            index.close()
            raise
    else:
        if model is None:
            raise ValueError(
                f'{folder} holds no index yet. A new one needs the config of '
                'the model (--config), and its weights (--checkpoint).'
            )
        inferencer = RetrievalInferencer(
            model, weights, untrained=untrained, **settings
        )
        index = inferencer.new_index(
            folder, segment=segment or 0.0, precision=precision or 'float32'
        )
    try:
        report = inferencer.update(index, found.paths, retry=retry)
        report.passed_over = found.passed_over
        roots = [os.path.abspath(video) for video in videos]
        report.gone = [p for p in report.gone if _lies_below(p, roots)]
        if prune:
            index.remove(report.gone)
        index.tidy()
    except BaseException:
        index.close()
        raise
    return index, report


def _find(videos: Sequence[str], may_be_empty: bool) -> FoundVideos:
    """List the files, before minutes of loading a model."""
    try:
        return find_videos(videos)
    except ValueError:
        if may_be_empty:  # all of them were deleted
            return FoundVideos([])
        raise


def _lies_below(path: str, roots: Sequence[str]) -> bool:
    return any(
        path == root or path.startswith(os.path.join(root, ''))
        for root in roots
    )


def _check_settings(
    index: VideoIndex, segment: float | None, precision: str | None
) -> None:
    for name, wanted, kept in (
        ('segment', segment, index.segment),
        ('precision', precision, index.precision),
    ):
        if wanted is not None and wanted != kept:
            raise VideoIndexError(
                f'The index {index.folder} was made with --{name} {kept}, '
                f'not {wanted}. Leave the option out, or make another index.'
            )


def report_lines(
    index: VideoIndex, report: IndexingReport, prune: bool
) -> Iterator[str]:
    """Say in words what became of the files."""
    yield (
        f'{len(report.added)} new, {len(report.updated)} changed, '
        f'{report.unchanged} unchanged files'
    )
    if report.unreadable:
        yield f'{len(report.unreadable)} could not be read, wholly or in part:'
        for path, error in sorted(report.unreadable.items()):
            yield printable(f'  {path}: {error}')
        yield '  (--retry tries those that have not changed again)'
    if report.passed_over:
        yield tell_passed_over(report.passed_over)
    if report.gone:
        what = 'were taken out' if prune else 'are kept (--prune removes them)'
        yield f'{len(report.gone)} files no longer exist and {what}:'
        yield from (printable(f'  {path}') for path in report.gone[:10])
        if len(report.gone) > 10:
            yield f'  and {len(report.gone) - 10} more'
    kind = 'segments' if index.segment else 'videos'
    yield f'{index.folder}: {len(index)} {kind} can be searched'
