"""Rank the captions of the story test set among many more videos.

    python tools/benchmark/wide_gallery.py work_dirs/story_comparison/*/seed* \
        --data-root data/story

Takes run folders of tools/compare.py and tests the checkpoint of each again,
among the videos of the test set and distractors: those of the validation set,
and the first rendering of every combination of the training set. With the
whole story set these are 120 and 280 videos, so that R@10 by chance is 2.5 %
instead of 8.3 %. Splits share no combination: a test caption still fits one
video only. Distractors of the training set were seen in training, with
captions of their own.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import harness

from eaglenet_mm.apis.comparison import chosen_checkpoint, mean_and_spread
from eaglenet_mm.apis.tool_process import RunError, run_tool
from eaglenet_mm.datasets import read_annotation, write_annotation


def gallery(data_root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and records: the test set, and distractors without captions."""
    records: dict[str, dict[str, Any]] = {}  # ids are COMBINATION-NUMBER
    headers = []
    for split in ('test', 'val', 'train'):
        header, found = read_annotation(data_root / f'{split}.json')
        headers.append(header)
        for record in found:
            combination = record['video_id'].rpartition('-')[0]
            own = {} if split == 'test' else {'captions': []}
            records.setdefault(combination, {**record, **own})
    counted = ('num_videos', 'num_captions')
    header = {k: v for k, v in headers[0].items() if k not in counted}
    return header, list(records.values())


def measure(run: Path, data_root: Path, annotation: Path) -> dict[str, float]:
    """Test one run; give its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = chosen_checkpoint(run / 'train')
        run_tool(
            harness.REPOSITORY / 'tools/test.py',
            [
                *(run / 'config.py', checkpoint, '--work-dir', folder),
                '--cfg-options',
                f'test_dataloader.dataset.data_root={data_root}',
                f'test_dataloader.dataset.ann_file={annotation}',
            ],
            Path(folder) / 'test.log',
        )
        file = Path(folder) / 'metrics.json'
        return json.loads(file.read_text('utf-8'))['metrics']


def main() -> None:
    """Measure, print and write."""
    parser = harness.make_parser(
        __doc__, data_root=(Path('data/story'), 'of the story set'), threads=1
    )
    add = parser.add_argument
    add('runs', nargs='+', type=Path, help='as .../x_pool_story-*/seed0')
    args = parser.parse_args()
    for run in args.runs:
        if not (run / 'config.py').is_file():
            parser.error(
                f'{run} is not a run folder of tools/compare.py: it has no '
                'config.py. Name the folders seed0, seed1 and so on.'
            )
    bench = harness.Bench(args)
    root = args.data_root.resolve()
    header, records = gallery(root)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        annotation = Path(folder) / 'gallery.json'
        write_annotation(annotation, header, records)
        for run in map(Path.resolve, args.runs):
            try:
                metrics = measure(run, root, annotation)
            except RunError as err:
                raise SystemExit(f'wide_gallery.py: {err}') from err
            found.setdefault(run.parent.name, []).append(metrics)
            print(f'{run}: t2v R@10 {metrics["t2v/R10"]:.1f}', flush=True)
            bench.write(metrics=found)
    chance = min(100.0, 100 * 10 / len(records))
    for config, runs in found.items():
        values = [metrics['t2v/R10'] for metrics in runs]
        row = {
            'config': config,
            'runs': len(runs),
            f't2v R@10 of {len(records)}': mean_and_spread(values),
            'times chance': statistics.fmean(values) / chance,
        }
        bench.add(row)
    bench.print_table('Test captions among all videos, percent')


if __name__ == '__main__':
    main()
