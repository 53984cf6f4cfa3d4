"""Print the final table of the quickstart from its metrics files."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

KEYS = ('t2v/R1', 't2v/R5', 't2v/R10', 't2v/MdR', 'v2t/R1', 'v2t/R10')
BOUNDS = {
    'chance': 'chance',
    'best that is blind to order': 'order_blind_ceiling',
}
MODELS = {
    'EagleNet, untrained': 'untrained',
    'mean pooling, trained equally': 'mean_pooling_story/test',
    'EagleNet': 'eaglenet_story/test',
}


def make_table(annotation: Path, out: Path) -> Table:
    """Collect the bounds and the measured metrics."""
    about = json.loads(annotation.read_text(encoding='utf-8'))['metainfo']
    rows = {
        title: {f't2v/R{k}': about[f'{name}_R{k}'] for k in (1, 5, 10)}
        for title, name in BOUNDS.items()
    }
    for title, folder in MODELS.items():
        file = out / folder / 'metrics.json'
        rows[title] = json.loads(file.read_text(encoding='utf-8'))['metrics']
    table = Table(
        title=f'{about["num_videos"]} videos, {about["num_captions"]} captions'
    )
    table.add_column('')
    for key in KEYS:
        table.add_column(key, justify='right')
    for title, values in rows.items():
        cells = [f'{values[k]:.1f}' if k in values else '' for k in KEYS]
        table.add_row(title, *cells)
    return table


def main() -> None:
    """Print the table, and the paths of all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('annotation', type=Path, help='of the test split')
    parser.add_argument('out', type=Path, help='folder of the quickstart')
    args = parser.parse_args()
    console = Console(width=100)
    console.print(make_table(args.annotation, args.out))
    console.print(f'story videos and annotations: {args.annotation.parent}')
    for title, folder in MODELS.items():
        console.print(f'{title}: {args.out / folder}/metrics.json')
    for name in ('eaglenet_story', 'mean_pooling_story'):
        console.print(f'checkpoints and logs: {args.out / name}')


if __name__ == '__main__':
    main()
