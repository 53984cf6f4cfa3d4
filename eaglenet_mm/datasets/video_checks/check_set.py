"""Check of all videos of a dataset, with a report."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from eaglenet_mm.datasets.annotation import read_annotation, write_annotation
from eaglenet_mm.datasets.isolated_workers import run_isolated
from eaglenet_mm.datasets.video_checks.one_video import (
    STATUSES,
    VideoCheck,
    check_video,
)
from eaglenet_mm.datasets.video_readers import reading_progress
from eaglenet_mm.utils.durable_file import write_text_durably
from eaglenet_mm.utils.progress import Progress

# Reading may pause for one limit; decoding the rest takes another.
_LIMITS_OF_TRAINING = 2


def check_videos(
    dataset: BaseDataset,
    report_path: Path,
    *,
    num_workers: int = 2,
    time_limit: float = 120,
) -> dict[str, Any]:
    """Read every video of a dataset the way training will.

    A worker process reads each video with the frame part of the pipeline,
    then decodes it to its end. A worker that hangs or dies is replaced.

    Args:
        dataset (BaseDataset): The videos and the pipeline.
        report_path (Path): JSON file of the report. An interrupted check
            continues where it stopped.
        num_workers (int): Number of processes. Default: 2.
        time_limit (float): Seconds without progress after which a video
            counts as hanging, as in training; also the limit for decoding
            the whole video. 0 for none. Default: 120.

    Returns:
        dict: See :meth:`CheckReport.finish`.

    Raises:
        ValueError: If the pipeline does not read frames.
    """
    transforms = _frame_transforms(dataset)
    prefix = dataset.data_prefix or {}
    report = CheckReport(
        report_path,
        dict(
            annotation=dataset.ann_file,
            # distinguishes reports of different video folders
            videos=prefix.get('video') or ' '.join(map(str, prefix.values())),
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
            check.error = f'{check.video}: {outcome.detail} while reading.'
        report.add(check)
        progress.update(1)
    progress.close()
    return report.finish(ids)


def _frame_transforms(dataset: BaseDataset) -> list[Callable]:
    """Return the transforms that read frames, without time limit."""
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
            # the worker process has a limit and can be killed
            transform = copy.copy(transform)
            transform.time_limit = 0
        chosen.append(transform)
    return chosen


def clean_annotation(source: str | Path, report: dict[str, Any]) -> Path:
    """Write the annotation file without the videos that would stop training.

    The header keeps the original counts as ``published_videos`` and
    ``published_captions``, so that evaluation reports "found n of m", and
    lists what was left out as ``missing_videos``.

    Args:
        source (str | Path): The annotation file.
        report (dict): Output of :func:`check_videos`.

    Returns:
        Path: ``<name>_clean.json`` in the same folder.

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
            f'{source}: none of its {len(records)} videos is readable, so '
            "nothing is left to write. Check 'data_root' and 'data_prefix', "
            'and the first errors of the report.'
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


class CheckReport:
    """Results of a check, saved as it runs.

    Each result is appended to ``<path>.part`` at once; :meth:`finish` writes
    the report. A restarted check reuses results from both files that were made
    with the same settings from unchanged files, except errors in a finished
    report.

    Args:
        path (Path): JSON file of the report.
        settings (dict): What the results depend on; JSON values.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.checks: dict[str, VideoCheck] = {}
        self._part = path.with_name(f'{path.name}.part')

    def load(self, items: Iterable[dict[str, Any]]) -> None:
        """Load earlier results that are still valid for these items."""
        now = {item['video_id']: item for item in items}
        for line in self._lines():
            try:
                check = VideoCheck(**line)
                size, changed = check.file
                check.file = (int(size), int(changed))
            except (TypeError, ValueError):
                continue  # written by another version
            item = now.get(check.video_id)
            if item is not None and check.is_of(item):
                self.checks[check.video_id] = check

    def add(self, check: VideoCheck) -> None:
        """Record a result, on disk as well."""
        self.checks[check.video_id] = check
        if not self._part.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(dict(settings=self.settings))
        self._append(check.to_dict())

    def finish(self, ids: list[str]) -> dict[str, Any]:
        """Write the report for these video ids, atomically.

        Returns:
            dict: The report: ``settings``, ``safe`` (bool), ``videos`` (their
            number), ``statuses`` and ``notes`` (counts by name), ``checks``
            (one per video).
        """
        checks = [self.checks[video_id] for video_id in ids]
        statuses = Counter(check.status for check in checks)
        report = dict(
            settings=self.settings,
            safe=set(statuses) <= {'ok'},
            videos=len(checks),
            statuses={name: statuses[name] for name in STATUSES},
            notes=dict(Counter(note for x in checks for note in x.notes)),
            checks=[check.to_dict() for check in checks],
        )
        text = json.dumps(report, indent=1, ensure_ascii=False)
        write_text_durably(self.path, f'{text}\n')
        self._part.unlink(missing_ok=True)
        return report

    def _lines(self) -> list[dict[str, Any]]:
        """Good results of a finished report, then all of a partial one."""
        found: list[dict[str, Any]] = []
        try:
            report = json.loads(self.path.read_text(encoding='utf-8'))
            if report['settings'] == self.settings:
                found += [x for x in report['checks'] if x['status'] == 'ok']
        except (OSError, ValueError, KeyError, TypeError):
            pass  # missing or unrelated: everything is checked again
        try:
            lines = self._part.read_text(encoding='utf-8').split('\n')
            if json.loads(lines[0]) == dict(settings=self.settings):
                # what follows the last line break is incomplete
                found += [json.loads(line) for line in lines[1:-1]]
                return found
        except (OSError, ValueError):
            pass
        self._part.unlink(missing_ok=True)
        return found

    def _append(self, line: dict[str, Any]) -> None:
        with open(self._part, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line, ensure_ascii=False) + '\n')


def report_lines(report: dict[str, Any], num_named: int = 10) -> list[str]:
    """Summarise a report as lines of text.

    Args:
        report (dict): Output of :meth:`CheckReport.finish`.
        num_named (int): Most videos to name per category. Default: 10.

    Returns:
        list[str]: Counts by status and note, with the first videos of each.
    """
    lines = [f'  ok: {report["statuses"]["ok"]} of {report["videos"]}']
    for status, meaning in STATUSES.items():
        if status == 'ok' or not report['statuses'][status]:
            continue
        lines.append(
            f'  {status}: {report["statuses"][status]} ({meaning}; training '
            'would stop)'
        )
        found = [x for x in report['checks'] if x['status'] == status]
        lines += [
            f'    {x["video_id"]}: {x["error"]}' for x in found[:num_named]
        ]
        if len(found) > num_named:
            lines.append(f'    and {len(found) - num_named} more')
    for note, count in report['notes'].items():
        names = [x['video_id'] for x in report['checks'] if note in x['notes']]
        more = ', ...' if count > num_named else ''
        lines.append(
            f'  {note}: {count} ({", ".join(names[:num_named])}{more})'
        )
    return lines
