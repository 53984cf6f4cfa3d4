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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
GIB = 2**30
UNKNOWN = 'Not measured yet: no GPU was at hand.'
#: Page, and the name in its markers.
PAGES = {'docs/performance.md': 'gpu', 'README.md': 'gpu-iteration'}

Stage = dict[str, Any]
Report = dict[str, Any]
Rows = list[dict[str, Any]]


def pytest_rows(report: Report) -> Rows:
    """Count tests."""
    return [{key: report[key] for key in ('passed', 'failed', 'skipped')}]


def scoring_rows(report: Report) -> Rows:
    """Give the time of all pairs, and what bounds it."""
    rows = []
    for case in report['cases']:
        # of a run under torch.compile, seconds alone
        ours, reference = case.get('ours', case), case.get('reference', {})
        row = {
            'texts x videos x frames': 'x'.join(
                str(case[x]) for x in ('texts', 'videos', 'frames')
            ),
            'type': case['dtype'],
            'compiled': 'failed' if case.get('failed') else 'ours' not in case,
            's': ours['seconds'],
            'pairs/s': ours['pairs_per_second'],
            'of the matrix peak': ours.get('peak_fraction'),
            's at that peak': ours.get('seconds_at_peak'),
            's to move its bytes': ours.get('seconds_at_bandwidth'),
            'reference pairs/s': reference.get('pairs_per_second'),
            'ratio': case.get('ratio'),
            'difference': case['largest_difference'],
        }
        rows.append(row)
    return rows


def step_rows(report: Report) -> Rows:
    """Give time and memory of a step of the head."""
    rows = []
    for case in report['cases']:
        ours, reference = case['ours'], case.get('reference', {})
        row = {
            'batch': case['batch'],
            'frames': case['frames'],
            'type': case['dtype'],
            's': ours['seconds'],
            'peak GiB': gib(ours['peak_bytes']),
            'reference s': reference.get('seconds'),
            'reference peak GiB': gib(reference.get('peak_bytes')),
            'ratio': case['ratio'],
        }
        rows.append(row)
    return rows


def iteration_rows(report: Report) -> Rows:
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
        for case in report['cases']
        for name, parts in case['seconds'].items()
    ]


def evaluation_rows(report: Report) -> Rows:
    """Give the time of evaluations."""
    options = report['options']
    return [
        {
            'what': f'{options["videos"]} videos, {found["captions"]} '
            f'captions, {name.replace("_", " ")}',
            's': found['seconds'],
            'pairs/s': found['pairs_per_second'],
            'peak GiB': gib(found.get('cuda_peak_bytes')),
        }
        for name, found in report['stages'].items()
    ]


def search_rows(report: Report) -> Rows:
    """Give the time of a query."""
    row = {
        'what': f'a query in {report["options"]["rows"]} rows',
        's': report['seconds']['one query, median'],
    }
    return [{**row, 'pairs/s': None, 'peak GiB': None}]


def loading_rows(report: Report) -> Rows:
    """Give the frames a second of each reader."""
    keys = ('way', 'workers', 'frames_per_second', 'videos_per_second')
    return [
        {key.replace('_', ' '): row[key] for key in keys}
        for row in report['rows']
    ]


#: By benchmark, the rows of its table.
ROWS: dict[str, Callable[[Report], Rows]] = {
    'pytest': pytest_rows,
    'pair_scoring': scoring_rows,
    'training_step': step_rows,
    'training_iteration': iteration_rows,
    'multi_caption': evaluation_rows,
    'video_search': search_rows,
    'loader_throughput': loading_rows,
}


def skipped_in(report: Report | None) -> list[str]:
    """List what a benchmark could not measure; of pytest it is a number."""
    skipped = (report or {}).get('skipped')
    return skipped if isinstance(skipped, list) else []


def notes_of(report: Report) -> list[str]:
    """List what did not fit or could not be measured, and why."""
    notes = [*skipped_in(report)]
    for case in report.get('cases', []):
        what = f'{case.get("batch", "")} {case["dtype"]}'.strip()
        notes += [f'{what}: {x}' for x in case.get('reference_note', [])]
    return notes


def gib(size: int | None) -> float | None:
    """Bytes in GiB, where they were measured."""
    return None if size is None else size / GIB


#: By stage, the title of its table.
TABLES = {
    'tests': 'Tests that need a GPU',
    'golden': "The release's numbers, heads on the GPU",
    'scoring': 'Scoring pairs',
    'step': 'Training step of the head',
    'iteration': 'Training iteration of `eaglenet_msrvtt`: ViT-B/16, 64 '
    'videos of 12 frames',
    'evaluation': 'Evaluation and search',
    'loading': 'From disk to the card',
}


def reports(stage: Stage | None) -> list[Report]:
    """Give the reports of a stage; a process that failed may have none."""
    parts = stage['parts'] if stage else ()
    return [part['report'] for part in parts if part['report'] is not None]


def read_stages(folder: Path) -> dict[str, Stage]:
    """Read the JSON files of a run."""
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
    for name, title in TABLES.items():
        stage = stages.get(name)
        found = reports(stage)
        rows = [row for x in found for row in ROWS[x['benchmark']](x)]
        text = markdown_table(rows) if rows else UNKNOWN
        if stage and stage['status'] != 'done':
            text += f'\n\nThis stage: {stage["status"]}.'
        for note in (note for report in found for note in notes_of(report)):
            text += f'\n\n* {note}'
        lines.append(f'**{title}.**\n\n{text}')
    return '\n\n'.join(lines)


def iteration_sentence(stages: dict[str, Stage]) -> str:
    """Say in README.md what a training iteration costs."""
    stage = stages.get('iteration')
    cases = [
        (report, case) for report in reports(stage) for case in report['cases']
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
    """Put content between the markers of a name."""
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
    add = parser.add_argument
    add('out_dir', type=Path, help='of gpu.sh')
    add('--check', action='store_true', help='write nothing')
    add('--root', type=Path, default=REPOSITORY)
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
