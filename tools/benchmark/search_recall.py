"""What a search loses: by its shortlist, and by the precision of its index.

    python tools/benchmark/search_recall.py CONFIG CHECKPOINT

Indexes the videos of the config's test set and searches every caption. States
how many rankings of the whole gallery equal those of a test, R@1 and R@10 by
precision of the index, and the share of the ten best videos that the first
stage lets through, by length of the shortlist. For sets of some thousand
videos at most: every caption is scored against all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import plain_parser, print_table, start
from mmengine.dataset import pseudo_collate
from torch import Tensor

from eaglenet_mm.apis import RetrievalInferencer, VideoIndex, find_config
from eaglenet_mm.engine.loops.retrieval_evaluation import RetrievalEvaluation
from eaglenet_mm.registry import DATASETS
from eaglenet_mm.search.precision import PRECISIONS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = plain_parser(__doc__)
    add = parser.add_argument
    add('config', help='config file or name')
    add('checkpoint', help='checkpoint file')
    add('--data-root', help='folder of the test set, if not the config says')
    add('--shortlists', type=int, nargs='+', default=[10, 20, 50])
    add('--device', default='cpu')
    return parser.parse_args()


def evaluate(
    inferencer: RetrievalInferencer, dataset: Any
) -> tuple[list[str], list[int], list[str], Tensor]:
    """Test as tools/test.py does."""
    evaluation = RetrievalEvaluation(inferencer.encoder.model)
    captions, videos = [], []
    with torch.no_grad():
        for item in dataset:
            (sample,) = evaluation.add_batch(pseudo_collate([item]))
            captions += sample.captions
            videos.append(str(Path(sample.video).absolute()))
        evaluation.gather()
        blocks = evaluation.encode_texts()
        rows = [
            row
            for block in evaluation.score(inferencer.encoder.head, blocks)
            for row in block
        ]
    columns = [row['column'] for row in rows]
    scores = torch.stack([row['scores'] for row in rows])
    return captions, columns, videos, scores


def search(
    inferencer: RetrievalInferencer, captions: list[str], videos: list[str]
) -> Tensor:
    """Rank all videos for each caption, columns by rank, ``(Bt, Bv)``."""
    column = {path: place for place, path in enumerate(videos)}
    return torch.tensor(
        [
            [
                column[hit.entry.file.path]
                for hit in inferencer.search(text, len(videos), shortlist=0)
            ]
            for text in captions
        ]
    )


def main() -> None:
    """Test, search, compare, and report."""
    args = parse_args()
    bench = start(args)
    cfg = find_config(args.config)
    if args.data_root is not None:
        cfg.test_dataloader.dataset.data_root = args.data_root
    inferencer = RetrievalInferencer(cfg, args.checkpoint, args.device)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    captions, columns, videos, scores = evaluate(inferencer, dataset)
    own = torch.tensor(columns)[:, None]
    index = inferencer.encode_videos(videos)
    precision_rows, recall_rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            index.save(Path(folder) / precision, precision=precision)
            inferencer.use(VideoIndex.load(Path(folder) / precision))
            found = search(inferencer, captions, videos)
            if precision == 'float32':
                expected = scores.argsort(dim=1, descending=True, stable=True)
                same = int((found == expected).all(dim=1).sum())
            hits = found == own
            precision_rows.append(
                {
                    'index': precision,
                    't2v R@1': 100 * hits[:, :1].float().sum(1).mean().item(),
                    't2v R@10': 100
                    * hits[:, :10].float().sum(1).mean().item(),
                }
            )
        inferencer.use(index)
        for size in args.shortlists:
            shares = [
                inferencer.check_shortlist(text, 10, size) for text in captions
            ]
            recall_rows.append(
                {
                    'shortlist': size,
                    'of the ten best': 100 * sum(shares) / len(shares),
                }
            )
    print(
        f'\n{same} of {len(captions)} rankings of all {len(videos)} videos '
        'are those of the test'
    )
    print_table('By precision of the index, percent', precision_rows)
    print_table('Let through by the first stage, percent', recall_rows)
    bench.write(same=same, precision=precision_rows, shortlist=recall_rows)


if __name__ == '__main__':
    main()
