"""Check all videos of a data set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from eaglenet_mm.utils.progress import Progress

from ..annotation import read_annotation, write_annotation
from ..isolated_workers import run_isolated
from ..video_readers import reading_progress
from .one_video import VideoCheck, check_video
from .report import CheckReport

# Reading may stand still for one limit; for another, all is decoded.
_LIMITS_OF_TRAINING = 2


def check_videos(
    dataset: BaseDataset,
    report_path: Path,
    *,
    num_workers: int = 2,
    time_limit: float = 120,
) -> dict[str, Any]:
    """Read every video of a data set the way training will.

    Each is read in a worker process by the frame part of the pipeline, then
    decoded to its end. A worker that hangs or dies is replaced.

    Args:
        dataset (BaseDataset): The videos and the pipeline.
        report_path (Path): The report, a JSON file. An interrupted check is
            taken up where it stopped.
        num_workers (int): Processes. Defaults to 2.
        time_limit (float): Seconds that opening a video or reading it may
            stand still, as in training; decoding all of it ends after as
            many. 0 for none. Defaults to 120.

    Returns:
        dict: See :meth:`CheckReport.finish`.

    Raises:
        ValueError: If the pipeline reads no frames.
    """
    transforms = frame_transforms(dataset)
    report = CheckReport(
        report_path,
        dict(
            annotation=dataset.ann_file,
            videos=_folder(dataset),
            pipeline=[repr(transform) for transform in transforms],
            time_limit=time_limit,
        ),
    )
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    report.load(items)
    ids = [item['video_id'] for item in items]
    waiting = [item for item in items if item['video_id'] not in report.checks]
    progress = Progress('videos', len(waiting))
    for outcome in run_isolated(
        partial(
            check_video,
            transforms=transforms,
            seconds=time_limit or float('inf'),
        ),
        waiting,
        num_workers=num_workers,
        time_limit=_LIMITS_OF_TRAINING * time_limit,
        progress=reading_progress,
    ):
        check = outcome.value
        if outcome.kind != 'done':
            check = VideoCheck.of_item(waiting[outcome.index])
            check.status = outcome.kind
            check.error = (
                f'{check.video}: reading it {outcome.detail}.'
                if outcome.kind == 'hang'
                else f'{check.video}: {outcome.detail} while reading it.'
            )
        report.add(check)
        progress.update(1)
    progress.close()
    return report.finish(ids)


def _folder(dataset: BaseDataset) -> str:
    """Where the videos are, to tell one report from another."""
    prefix = dataset.data_prefix or {}
    return prefix.get('video') or ' '.join(map(str, prefix.values()))


def frame_transforms(dataset: BaseDataset) -> list[Callable]:
    """The part of a pipeline that reads frames, without its time limit.

    Args:
        dataset (BaseDataset): Has the pipeline.

    Returns:
        list[Callable]: Its transforms up to the one that decodes.

    Raises:
        ValueError: If there is none.
    """
    transforms: Sequence[Callable] = dataset.pipeline.transforms
    names = [type(transform).__name__ for transform in transforms]
    if 'DecodeFrames' not in names:
        raise ValueError(
            'Checking videos needs a pipeline with DecodeFrames, but got '
            f'{names}. Add OpenVideo, SampleFrames and DecodeFrames.'
        )
    chosen = []
    for transform in transforms[: names.index('DecodeFrames') + 1]:
        if hasattr(transform, 'time_limit'):
            # the process has a limit of its own, and can be ended
            transform = copy.copy(transform)
            transform.time_limit = 0
        chosen.append(transform)
    return chosen


def clean_annotation(source: str | Path, report: dict[str, Any]) -> Path:
    """Write the annotation file without the videos that training stops at.

    The header keeps the counts of the complete set as ``published_videos``
    and ``published_captions``, so that an evaluation still says "found n of
    m", and lists what was left out under ``missing_videos``.

    Args:
        source (str | Path): The annotation file.
        report (dict): Of :func:`check_videos`.

    Returns:
        Path: ``<name>_clean.json`` beside it.

    Raises:
        ValueError: If no video is left.
    """
    source = Path(source)
    header, records = read_annotation(source)
    dropped = {
        check['video_id']
        for check in report['checks']
        if check['status'] != 'ok'
    }
    kept = [x for x in records if x['video_id'] not in dropped]
    if not kept:
        raise ValueError(
            f'{source}: training could read none of its {len(records)} '
            "videos, so nothing is left to write. Check 'data_root' and "
            "'data_prefix', and the first errors of the report."
        )
    header.setdefault('published_videos', header['num_videos'])
    header.setdefault('published_captions', header['num_captions'])
    header['missing_videos'] = [
        *header.get('missing_videos', []),
        *(x['video_id'] for x in records if x['video_id'] in dropped),
    ]
    del header['num_videos'], header['num_captions']
    path = source.with_name(f'{source.stem}_clean.json')
    write_annotation(path, header, kept)
    return path
