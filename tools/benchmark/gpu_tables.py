"""Bring what ``gpu.sh`` measured into docs/performance.md and README.md.

    python tools/benchmark/gpu_tables.py OUT_DIR
    python tools/benchmark/gpu_tables.py OUT_DIR --check

Writes what lies between the two markers of each page anew from the JSON files
of OUT_DIR; a stage that has none is "not measured yet". Results of --smoke are
refused, since they are of a CPU. --check writes nothing and exits with 1 if a
page would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common  # noqa: F401  makes the checkout importable
from reporting import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
GIB = 2**30
UNKNOWN = 'Not measured yet: no GPU was at hand.'
#: Page, and the name in its markers.
PAGES = {'docs/performance.md': 'gpu', 'README.md': 'gpu-iteration'}

Stage = dict[str, Any]
Rows = list[dict[str, Any]]


def reports(stage: Stage) -> Iterator[dict[str, Any]]:
    """Give the reports of a stage; a process that failed may have none."""
    for part in stage['parts']:
        if part['report'] is not None:
            yield part['report']


def test_rows(stage: Stage) -> Rows:
    """Count tests."""
    return [
        {key: report[key] for key in ('passed', 'failed', 'skipped')}
        for report in reports(stage)
    ]


def scoring_rows(stage: Stage) -> Rows:
    """Give the time of all pairs, and what bounds it."""
    cases = [case for report in reports(stage) for case in report['cases']]
    compiled = {
        (case['frames'], case['dtype']): case['seconds']
        for case in cases
        if 'failed' in case and not case['failed']
    }
    return [
        {
            'texts x videos x frames': 'x'.join(
                str(case[x]) for x in ('texts', 'videos', 'frames')
            ),
            'type': case['dtype'],
            's': case['ours']['seconds'],
            's compiled': compiled.get((case['frames'], case['dtype'])),
            'pairs/s': case['ours']['pairs_per_second'],
            'of the matrix peak': case['ours']['peak_fraction'],
            's at that peak': case['ours']['seconds_at_peak'],
            's to move its bytes': case['ours']['seconds_at_bandwidth'],
            'reference pairs/s': case['reference']['pairs_per_second'],
            'ratio': case['ratio'],
            'difference': case['largest_difference'],
        }
        for case in cases
        if 'ours' in case
    ]


def step_rows(stage: Stage) -> Rows:
    """Give time and memory of a step of the head."""
    return [
        {
            'batch': case['batch'],
            'frames': case['frames'],
            'type': case['dtype'],
            's': case['ours']['seconds'],
            'peak GiB': gib(case['ours']['peak_bytes']),
            'reference s': case.get('reference', {}).get('seconds'),
            'reference peak GiB': gib(
                case.get('reference', {}).get('peak_bytes')
            ),
            'ratio': case['ratio'],
        }
        for report in reports(stage)
        for case in report['cases']
    ]


def iteration_rows(stage: Stage) -> Rows:
    """Give the parts of an iteration, ours and with the reference."""
    return [
        {
            'type': case['dtype'],
            'checkpointing': case['checkpointing'],
            'head': name,
            's': case['total_seconds'][name],
            **{f'{part} ms': 1000 * s for part, s in parts.items()},
            'head %': case['head_percent'][name],
            'peak GiB': gib(case['peak_bytes'][name]),
        }
        for report in reports(stage)
        for case in report['cases']
        for name, parts in case['seconds'].items()
    ]


def evaluation_rows(stage: Stage) -> Rows:
    """Give the time of evaluations and of a query."""
    rows = []
    for report in reports(stage):
        if report['benchmark'] == 'video_search':
            rows.append(
                {
                    'what': f'a query in {report["options"]["rows"]} rows',
                    's': report['seconds']['one query, median'],
                    'pairs/s': None,
                    'peak GiB': None,
                }
            )
            continue
        for name, found in report['stages'].items():
            what = (
                f'{report["options"]["videos"]} videos, '
                f'{found["captions"]} captions, {name.replace("_", " ")}'
            )
            rows.append(
                {
                    'what': what,
                    's': found['seconds'],
                    'pairs/s': found['pairs_per_second'],
                    'peak GiB': gib(found.get('cuda_peak_bytes')),
                }
            )
    return rows


def loading_rows(stage: Stage) -> Rows:
    """Give the frames a second of each reader."""
    keys = ('way', 'workers', 'frames_per_second', 'videos_per_second')
    return [
        {key.replace('_', ' '): row[key] for key in keys}
        for report in reports(stage)
        for row in report['rows']
    ]


def notes_of(stage: Stage) -> list[str]:
    """List what did not fit or could not be measured, and why."""
    notes: list[str] = []
    for report in reports(stage):
        skipped = report.get('skipped')  # of pytest it is a number
        notes += skipped if isinstance(skipped, list) else []
        for case in report.get('cases', []):
            what = f'{case.get("batch", "")} {case["dtype"]}'.strip()
            notes += [f'{what}: {x}' for x in case.get('reference_note', [])]
    return notes


def gib(size: int | None) -> float | None:
    """Bytes in GiB, where they were measured."""
    return None if size is None else size / GIB


#: By stage, what its table shows.
TABLES: dict[str, tuple[str, Callable[[Stage], Rows]]] = {
    'tests': ('Tests that need a GPU', test_rows),
    'golden': ("The release's numbers, heads on the GPU", test_rows),
    'scoring': ('Scoring pairs', scoring_rows),
    'step': ('Training step of the head', step_rows),
    'iteration': (
        'Training iteration of `eaglenet_msrvtt`: ViT-B/16, 64 videos of 12 '
        'frames',
        iteration_rows,
    ),
    'evaluation': ('Evaluation and search', evaluation_rows),
    'loading': ('From disk to the card', loading_rows),
}


def read_stages(folder: Path) -> dict[str, Stage]:
    """Read the JSON files of a run.

    Raises:
        SystemExit: If they are of ``--smoke``.
    """
    stages = {}
    for name in TABLES:
        file = folder / f'{name}.json'
        if file.is_file():
            stages[name] = json.loads(file.read_text())
            if stages[name]['smoke']:
                raise SystemExit(
                    f'{file} is of --smoke, which measures nothing. Run '
                    'gpu.sh on a GPU.'
                )
    return stages


def section(stages: dict[str, Stage]) -> str:
    """Write the section of docs/performance.md."""
    if not stages:
        return UNKNOWN
    machines = [
        report['machine']
        for stage in stages.values()
        for report in reports(stage)
        if 'machine' in report
    ]
    lines = []
    if machines:
        m = machines[0]
        lines.append(
            f'{m["gpu"]}, CUDA {m["cuda"]}, torch {m["torch"]}, Python '
            f'{m["python"]}; {m["cores"]} cores of {m["processor"]}.'
        )
    for name, (title, rows_of) in TABLES.items():
        stage = stages.get(name)
        rows = rows_of(stage) if stage else []
        text = markdown_table(rows) if rows else UNKNOWN
        if stage and stage['status'] != 'done':
            text += f'\n\nThis stage: {stage["status"]}.'
        for note in notes_of(stage) if stage else ():
            text += f'\n\n* {note}'
        lines.append(f'**{title}.**\n\n{text}')
    return '\n\n'.join(lines)


def iteration_sentence(stages: dict[str, Stage]) -> str:
    """Say in README.md what a training iteration costs."""
    stage = stages.get('iteration')
    cases = [
        (report, case)
        for report in (reports(stage) if stage else ())
        for case in report['cases']
    ]
    if not cases:
        return 'not measured on a GPU yet'
    # the fastest is what one would train with
    report, case = min(cases, key=lambda x: x[1]['total_seconds']['ours'])
    memory = gib(case['peak_bytes']['ours'])
    return (
        f'{case["total_seconds"]["ours"]:.2f} s and {memory:.0f} GiB on one '
        f'{report["machine"]["gpu"]} in {case["dtype"]}, '
        f'{case["head_percent"]["ours"]:.1f} % of it in the head'
    )


def replace_between(text: str, name: str, content: str) -> str:
    """Put content between the markers of a name, on lines of its own or not.

    Raises:
        ValueError: If the text has not exactly one pair of markers.
    """
    pattern = re.compile(
        rf'(<!-- {name}: begin[^>]*-->)(\s*).*?(\s*)(<!-- {name}: end -->)',
        re.DOTALL,
    )
    if len(pattern.findall(text)) != 1:
        raise ValueError(
            f"Expected one '<!-- {name}: begin -->' with its end, but found "
            f'{len(pattern.findall(text))}.'
        )
    return pattern.sub(
        lambda found: f'{found[1]}{found[2]}{content}{found[3]}{found[4]}',
        text,
    )


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('out_dir', type=Path, help='of gpu.sh')
    parser.add_argument('--check', action='store_true', help='write nothing')
    parser.add_argument('--root', type=Path, default=REPOSITORY)
    args = parser.parse_args()
    if not args.out_dir.is_dir():
        parser.error(f'{args.out_dir} is no folder.')
    stages = read_stages(args.out_dir)
    contents = (section(stages), iteration_sentence(stages))
    changed = []
    for (page, name), content in zip(PAGES.items(), contents, strict=True):
        file = args.root / page
        before = file.read_text()
        after = replace_between(before, name, content)
        if after != before:
            changed.append(page)
            if not args.check:
                file.write_text(after)
    print(f'{"would change" if args.check else "changed"}: {changed}')
    return int(args.check and bool(changed))


if __name__ == '__main__':
    sys.exit(main())
