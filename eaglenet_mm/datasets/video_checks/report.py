"""The report of a check, written so that an interrupted one resumes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .one_video import STATUSES, VideoCheck


class CheckReport:
    """Results of a check, in a file that grows while it runs.

    Each result becomes a line of ``<path>.part`` at once; :meth:`finish`
    makes the report of them. A check that is started again takes from both
    what still holds: results made with the same settings, of files that have
    not changed; from a finished report only those without an error.

    Args:
        path (Path): The JSON file to write.
        settings (dict): What the results depend on; JSON values.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.checks: dict[str, VideoCheck] = {}
        self._part = path.with_name(f'{path.name}.part')

    def load(self, items: Iterable[dict[str, Any]]) -> None:
        """Take over earlier results that still hold.

        Args:
            items (Iterable[dict]): What is to be checked, as it is now.
        """
        now = {item['video_id']: item for item in items}
        for line in self._lines():
            try:
                check = VideoCheck(**line)
                size, changed = check.file
                check.file = (int(size), int(changed))
            except (TypeError, ValueError):
                continue  # of another version
            item = now.get(check.video_id)
            if item is not None and check.is_of(item):
                self.checks[check.video_id] = check

    def add(self, check: VideoCheck) -> None:
        """Keep a result, on disk as well."""
        self.checks[check.video_id] = check
        if not self._part.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(dict(settings=self.settings))
        self._append(check.to_dict())

    def finish(self, ids: list[str]) -> dict[str, Any]:
        """Write the report, all or nothing.

        Args:
            ids (list[str]): Ids of the annotation file, in its order.

        Returns:
            dict: The report: ``settings``, ``safe`` (bool), ``videos``
            (their number), ``statuses`` and ``notes`` (numbers by name),
            ``checks`` (one for each video).
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f'.{self.path.name}.tmp')
        temporary.write_text(
            json.dumps(report, indent=1, ensure_ascii=False) + '\n',
            encoding='utf-8',
        )
        os.replace(temporary, self.path)
        self._part.unlink(missing_ok=True)
        return report

    def _lines(self) -> list[dict[str, Any]]:
        """Results of a finished report without error, then of a part."""
        found: list[dict[str, Any]] = []
        try:
            report = json.loads(self.path.read_text(encoding='utf-8'))
            if report['settings'] == self.settings:
                found += [x for x in report['checks'] if x['status'] == 'ok']
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or of something else: all is checked again
        try:
            lines = self._part.read_text(encoding='utf-8').split('\n')
            if json.loads(lines[0]) == dict(settings=self.settings):
                # what stands behind the last line break was interrupted
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
    """Say in lines of text what a report holds.

    Args:
        report (dict): Of :meth:`CheckReport.finish`.
        num_named (int): Most videos named of each kind. Defaults to 10.

    Returns:
        list[str]: Numbers by status and note, with the first videos of each.
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
