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
from pathlib import Path
from typing import Any

from tables import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
UNKNOWN = 'Not measured yet: no GPU was at hand.'
#: Page, and the name in its markers.
PAGES = {'docs/performance.md': 'gpu', 'README.md': 'gpu-iteration'}

Stage = dict[str, Any]
Report = dict[str, Any]


def notes_of(report: Report) -> list[str]:
    """List what did not fit or failed, and why."""
    return [*report.get('skipped', []), *report.get('notes', [])]


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
        rows = [row for report in found for row in report['rows']]
        text = markdown_table(rows) if rows else UNKNOWN
        if stage and stage['status'] != 'done':
            text += f'\n\nThis stage: {stage["status"]}.'
        for note in (note for report in found for note in notes_of(report)):
            text += f'\n\n* {note}'
        lines.append(f'**{title}.**\n\n{text}')
    return '\n\n'.join(lines)


def iteration_sentence(stages: dict[str, Stage]) -> str:
    """Say in README.md what a training iteration costs."""
    cases = [
        (row['s'], row, report)
        for report in reports(stages.get('iteration'))
        for row in report['rows']
        if row['head'] == 'ours'
    ]
    if not cases:
        return 'not measured on a GPU yet'
    # the fastest is what one would train with
    took, row, report = min(cases, key=lambda case: case[0])
    return (
        f'{took:.2f} s and {row["peak GiB"]:.0f} GiB on one '
        f'{report["machine"]["gpu"]} in {row["type"]}, '
        f'{row["head %"]:.1f} % of it in the head'
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
