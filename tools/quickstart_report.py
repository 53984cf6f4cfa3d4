"""Print what the quickstart found: a table, one search, what to do next."""

import argparse
import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.evaluation.functional import temporal_iou

KEYS = {
    't2v/R1': 't2v R@1',
    't2v/R5': 'R@5',
    't2v/R10': 'R@10',
    'v2t/R1': 'v2t R@1',
    'moments/corpus_R1_IoU0.5': 'moment',
    'moments/R1_IoU0.5': 'in its video',
}
BOUNDS = {
    'chance': 'chance',
    'best that is blind to order': 'order_blind_ceiling',
    'mean of the true scenes': 'mean_of_scenes_ceiling',
}
MODELS = {
    'EagleNet, untrained': 'untrained',
    'mean pooling': 'mean_pooling_story/test',
    'X-Pool': 'x_pool_story/test',
    'EagleNet': 'eaglenet_story/test',
}
#: Captions tried until one is found, in the order of the list.
TRIED = 20


def make_table(annotation: dict[str, Any], out: Path) -> Table:
    """Collect the bounds and the measured metrics."""
    about = annotation['metainfo']
    rows = {
        title: {f't2v/R{k}': about[f'{name}_R{k}'] for k in (1, 5, 10)}
        for title, name in BOUNDS.items()
    }
    for title, folder in MODELS.items():
        file = out / folder / 'metrics.json'
        rows[title] = json.loads(file.read_text(encoding='utf-8'))['metrics']
    for key in KEYS:
        if key.startswith('moments/'):
            rows['chance'][key] = rows['EagleNet'][f'{key}_chance']
    table = Table(
        title=f'{about["num_videos"]} videos of scenes never seen in '
        f'training, {about["num_captions"]} captions',
        caption='moment: of all 2 s windows of all videos, the best one is '
        'the scene that is told (IoU 0.5); in its video: of that video alone, '
        'where a window shows one scene and a mean is enough',
    )
    table.add_column('percent')
    for name in KEYS.values():
        table.add_column(name, justify='right')
    for title, values in rows.items():
        cells = [f'{values[k]:.1f}' if k in values else '' for k in KEYS]
        table.add_row(title, *cells)
    return table


def search(
    console: Console, annotation: dict[str, Any], index: Path, query: str
) -> str:
    """Ask the index, and say whether the answer is right; give the query.

    Without a query, the first caption of the list whose moment is found is
    taken, and how many were tried is said.
    """
    told = {
        caption: (Path(record['video']).name, moments)
        for record in annotation['data_list']
        for caption, moments in zip(
            record['captions'], record['moments'], strict=True
        )
    }
    queries = [query] if query else list(told)[:TRIED]
    # what it prints while loading is nothing for a summary
    with redirect_stdout(sys.stderr):
        inferencer = RetrievalInferencer.of_index(str(index))
    answers = inferencer.search(queries, k=3, per_video=1)
    places = range(len(queries))
    found = [p for p in places if is_right(answers[p][0], told, queries[p])]
    place = found[0] if found else 0
    query = queries[place]
    note = ''
    if len(queries) > 1:
        note = '\n(the first caption of the test whose scene is the first '
        note += f'hit: number {place + 1}; {len(found)} of the first '
        note += f'{len(queries)} are)'
    console.print(f'\nSearch: "{query}"{note}', highlight=False)
    for hit in answers[place]:
        right = '   <- this is what it tells' * is_right(hit, told, query)
        console.print(
            f'  {Path(hit.path).name}  {hit.start:.1f} to {hit.end:.1f} s, '
            f'best at {hit.best_time:.1f} s{right}',
            highlight=False,
        )
    return query


def is_right(hit: Any, told: dict[str, Any], query: str) -> bool:
    """Whether a hit is the video of a caption, in its moment."""
    video, moments = told.get(query, ('', []))
    if Path(hit.path).name != video:
        return False
    window = torch.tensor([[hit.start, hit.end]])
    overlaps = temporal_iou(window, torch.tensor(moments))
    return bool(overlaps.max() >= 0.5)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('annotation', type=Path, help='of the test split')
    parser.add_argument('out', type=Path, help='folder of the quickstart')
    parser.add_argument('index', type=Path, help='of the test videos')
    parser.add_argument(
        '--query', default='', help='default: a caption that is found'
    )
    args = parser.parse_args()
    annotation = json.loads(args.annotation.read_text(encoding='utf-8'))
    console = Console(width=100)
    console.print(make_table(annotation, args.out))
    query = search(console, annotation, args.index, args.query)
    environment = Path(sys.prefix)
    if environment.is_relative_to(Path.cwd()):
        environment = environment.relative_to(Path.cwd())
    lines = (
        f'\nResults, to look at:  {args.out / "page" / "results.html"}',
        f'Index of the videos:  {args.index}',
        f'Checkpoints and logs: {args.out}',
        '\nGo on:',
        f'  source {shlex.quote(str(environment / "bin" / "activate"))}',
        f'  eaglenet-mm search {shlex.join([str(args.index), query])}',
        f'  eaglenet-mm serve {shlex.quote(str(args.index))}'
        '    # and open the page it names',
    )
    console.print('\n'.join(lines), highlight=False, soft_wrap=True)


if __name__ == '__main__':
    main()
