"""Bring what ``gpu.sh`` measured into docs/performance.md and README.md.

    python tools/benchmark/gpu_tables.py OUT_DIR

Rewrites what lies between the two markers of each page from the JSON files of
OUT_DIR. Without a file, a stage is "not measured yet". Results of --smoke are
refused, since they are of a CPU.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tables import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
UNKNOWN = 'Not measured yet: no GPU was at hand.'
#: Page, and the name in its markers.
PAGES = {'docs/performance.md': 'gpu', 'README.md': 'gpu-iteration'}

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


def notes_of(report: dict[str, Any]) -> list[str]:
    """List what did not fit or failed, and why."""
    return [*report.get('skipped', []), *report.get('notes', [])]


def read_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the JSON files of a run; ``reports`` are of its processes."""
    stages = {}
    for name in TABLES:
        file = folder / f'{name}.json'
        if file.is_file():
            stage = stages[name] = json.loads(file.read_text())
            if stage['smoke']:
                raise SystemExit(
                    f'{file} is of --smoke, which measures nothing. Run '
                    'gpu.sh on a GPU.'
                )
            # a process that failed may have none
            parts = (part['report'] for part in stage['parts'])
            stage['reports'] = [report for report in parts if report]
    return stages


def section(stages: dict[str, dict[str, Any]]) -> str:
    """Write the section of docs/performance.md."""
    if not stages:
        return UNKNOWN
    lines = []
    found = [report for x in stages.values() for report in x['reports']]
    for m in [x['machine'] for x in found if 'machine' in x][:1]:
        lines.append(
            f'{m["gpu"]}, CUDA {m["cuda"]}, torch {m["torch"]}, Python '
            f'{m["python"]}; {m["cores"]} cores of {m["processor"]}.'
        )
    for name, title in TABLES.items():
        stage = stages.get(name, dict(reports=[], status='done'))
        rows = [row for report in stage['reports'] for row in report['rows']]
        text = markdown_table(rows) if rows else UNKNOWN
        if stage['status'] != 'done':
            text += f'\n\nThis stage: {stage["status"]}.'
        for note in (x for one in stage['reports'] for x in notes_of(one)):
            text += f'\n\n* {note}'
        lines.append(f'**{title}.**\n\n{text}')
    return '\n\n'.join(lines)


def iteration_sentence(stages: dict[str, dict[str, Any]]) -> str:
    """Say in README.md what a training iteration costs."""
    cases = [
        (row['s'], row, report)
        for report in stages.get('iteration', {}).get('reports', ())
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
    pattern = rf'(<!-- {name}: begin[^>]*-->\s*).*?(\s*<!-- {name}: end -->)'
    new, count = re.subn(
        pattern, lambda x: f'{x[1]}{content}{x[2]}', text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(
            f"Expected one '<!-- {name}: begin -->' with its end, but found "
            f'{count}.'
        )
    return new


def main() -> None:
    """Rewrite the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('out_dir', type=Path, help='of gpu.sh')
    args = parser.parse_args()
    if not args.out_dir.is_dir():
        parser.error(f'{args.out_dir} is no folder.')
    stages = read_stages(args.out_dir)
    contents = (section(stages), iteration_sentence(stages))
    for (page, name), content in zip(PAGES.items(), contents, strict=True):
        file = REPOSITORY / page
        file.write_text(replace_between(file.read_text(), name, content))


if __name__ == '__main__':
    main()
