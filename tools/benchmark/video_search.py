"""Search in an index of videos: its speed, what it loses, what it refuses.

python tools/benchmark/video_search.py speed --rows 100000 --index FILE
python tools/benchmark/video_search.py recall CONFIG CHECKPOINT
python tools/benchmark/video_search.py reject CONFIG CHECKPOINT
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
from harness import MIB
from mmengine.dataset import pseudo_collate
from torch import Tensor

from eaglenet_mm.apis import (
    IndexedFile,
    RetrievalInferencer,
    VideoIndex,
    find_config,
)
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.engine.loops.retrieval_evaluation import RetrievalEvaluation
from eaglenet_mm.registry import DATASETS
from eaglenet_mm.search.evidence import Calibration
from eaglenet_mm.search.records import PRECISIONS, Moments
from eaglenet_mm.search.searching import video_vectors
from eaglenet_mm.structures import VideoFeatures

BLOCK = 500
WORDS = ('a', 'man', 'dog', 'red', 'car', 'runs', 'near', 'the', 'sea')


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function; return seconds and its result."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def make_rows(
    head: Any, count: int, first: int
) -> list[tuple[IndexedFile, Moments]]:
    """Make rows of random features, as an encoder would give them."""
    frames = head.num_frames
    generator = torch.Generator().manual_seed(first)
    shape = (count, frames, head.embed_dim)
    # frames of one video resemble each other
    features = torch.randn(count, 1, head.embed_dim, generator=generator)
    features = features + 0.5 * torch.randn(shape, generator=generator)
    mask = torch.ones(shape[:2], dtype=torch.bool)
    with torch.no_grad():
        vectors = video_vectors(head, VideoFeatures(features, mask), '')
    return [
        (
            IndexedFile(f'/videos/{first + row}.mp4', 1, 1, 30.0),
            Moments(
                spans=torch.tensor([[0.0, 30.0]], dtype=torch.float64),
                vectors=vectors[row : row + 1],
                times=torch.arange(frames).float()[None],
                features={
                    'frames': features[row : row + 1],
                    'frame_mask': mask[row : row + 1],
                },
                state={},
                thumbnails=[bytes(4000)],
            ),
        )
        for row in range(count)
    ]


def speed() -> None:
    """Building and loading an index, and one query from end to end.

    Rows are prepared by the head of a config from random features, as if
    videos had been read; everything after that is what tools/index.py and
    tools/search.py do, the text encoder included.
    """
    parser = harness.make_parser(speed.__doc__, 'device')
    harness.add_options(
        parser,
        config=('eaglenet_msrvtt_vit-b32', 'config or name'),
        rows=(100_000, 'videos of the index'),
        precision=('float16', 'of the index', PRECISIONS),
        shortlist=(100, 'rows that are ranked'),
        first_stage=('auto', 'torch, faiss or milvus'),
        queries=(50, 'timed, for the median'),
        index=(Path('work_dirs/benchmark.index'), 'file or URI'),
        reuse=(False, 'take the index that is there'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    cfg = find_config(args.config)
    for side in ('text_encoder', 'video_encoder'):
        cfg.model[side].pop('pretrained', None)
    inferencer = RetrievalInferencer(
        cfg, device=args.device, untrained=True, first_stage=args.first_stage
    )
    head = inferencer.encoder.head

    def add(what: str, took: float) -> None:
        bench.add({'stage': f'{what}, {args.rows} rows', 's': took})

    if not args.reuse:
        writing = 0.0
        args.index.unlink(missing_ok=True)
        with inferencer.new_index(
            args.index, precision=args.precision
        ) as index:
            for first in range(0, args.rows, BLOCK):
                rows = make_rows(head, min(BLOCK, args.rows - first), first)
                writing += timed(lambda: index.add_many(rows))[0]  # noqa: B023
            writing += timed(index.close)[0]
        add('writing', writing)
    sizes = {
        'on the disk': args.index.stat().st_size,
        'resident before loading': harness.status('VmRSS'),
    }
    took, index = timed(lambda: VideoIndex.load(args.index))
    add('loading', took)
    inferencer.use(index)
    add('first stage', timed(inferencer.searcher)[0])

    def search(text: str) -> Any:
        return inferencer.search(text, 10, shortlist=args.shortlist)

    add('first query', timed(lambda: search('a warm up'))[0])
    queries = [
        ' '.join(WORDS[(n * 7 + k * 5) % len(WORDS)] for k in range(8))
        for n in range(args.queries)
    ]
    times = sorted(timed(lambda x=x: search(x))[0] for x in queries)
    texts = [
        harness.seconds(lambda x=x: inferencer.encode_texts(x), bench.device)
        for x in queries
    ]
    add('one query, median', statistics.median(times))
    add('one query, 95 %', times[min(int(0.95 * len(times)), len(times) - 1)])
    add('of it the text', statistics.median(texts))
    with VideoIndex.load(args.index, writable=True) as writer:
        inferencer.use(writer)
        inferencer.searcher()
        ((file, row),) = make_rows(head, 1, args.rows)
        add('adding one', timed(lambda: writer.add(file, row))[0])
        add('search after it', timed(lambda: search('a dog'))[0])
        add('removing one', timed(lambda: writer.remove([file.path]))[0])
        add('search after that', timed(lambda: search('a dog'))[0])
    sizes['resident, own'] = harness.status('RssAnon')
    sizes['resident, pages of the index too'] = harness.status('VmRSS')
    for what, size in sizes.items():
        bench.add({'stage': f'{what}, {args.rows} rows', 'MiB': size / MIB})
    bench.print_table(f'{args.precision}, {args.config}')


def evaluate(
    inferencer: RetrievalInferencer, dataset: Any
) -> tuple[list[str], Tensor, list[str], Tensor]:
    """Test as tools/test.py does: captions, their columns, videos, scores."""
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
    columns = torch.tensor([row['column'] for row in rows])
    scores = torch.stack([row['scores'] for row in rows])
    return captions, columns, videos, scores


def recall() -> None:
    """What a search loses by its shortlist, and by its index's precision.

    Indexes the videos of the config's test set and searches every caption.
    Tells how many rankings of the whole gallery equal those of a test, R@1 and
    R@10 by precision of the index, and the share of the ten best videos that
    the first stage lets through, by length of the shortlist. For sets of some
    thousand videos at most: every caption is scored against all of them.
    """
    parser = harness.make_parser(recall.__doc__, 'device')
    parser.add_argument('config', help='config file or name')
    parser.add_argument('checkpoint', help='checkpoint file')
    harness.add_options(
        parser,
        data_root=(str, 'folder of the test set, if not the config says'),
        shortlists=([10, 20, 50], 'rows that are ranked'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    cfg = find_config(args.config)
    if args.data_root is not None:
        cfg.test_dataloader.dataset.data_root = args.data_root
    inferencer = RetrievalInferencer(cfg, args.checkpoint, args.device)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    captions, columns, videos, scores = evaluate(inferencer, dataset)
    number = {path: place for place, path in enumerate(videos)}
    index = inferencer.encode_videos(videos)
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            index.save(Path(folder) / precision, precision=precision)
            inferencer.use(VideoIndex.load(Path(folder) / precision))
            found = torch.tensor(
                [
                    [
                        number[hit.path]
                        for hit in inferencer.search(
                            text, len(videos), shortlist=0
                        )
                    ]
                    for text in captions
                ]
            )
            expected = scores.argsort(dim=1, descending=True, stable=True)
            hits = 100 * (found == columns[:, None]).float()
            row = {
                'index': precision,
                't2v R@1': hits[:, :1].sum(1).mean().item(),
                't2v R@10': hits[:, :10].sum(1).mean().item(),
                'rankings of the test': int(
                    (found == expected).all(dim=1).sum()
                ),
                'captions': len(captions),
            }
            bench.add(row)
    inferencer.use(index)
    for size in args.shortlists:
        shares = [inferencer.check_shortlist(x, 10, size) for x in captions]
        share = 100 * statistics.fmean(shares)
        bench.add({'shortlist': size, 'of the ten best let through': share})
    bench.print_table(f'All {len(videos)} videos ranked, percent')


def reject() -> None:
    """How well an index knows that it shows nothing of the kind.

    Indexes the videos of the config's test set. Of their captions half
    calibrate, and the others must pass; captions of the validation set, which
    shows other combinations, should not. Tells the share of good queries that
    pass, over many splits, and how well the best scores tell both apart.
    """
    parser = harness.make_parser(reject.__doc__, 'device')
    parser.add_argument('config', help='config file or name')
    parser.add_argument('checkpoint', help='checkpoint file')
    harness.add_options(
        parser,
        data_root=(str, 'folder of the test set, if not the config says'),
        splits=(200, 'halves drawn from the captions'),
        alphas=([0.05, 0.1, 0.2], 'shares that may be refused'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    cfg = find_config(args.config)
    root = args.data_root or cfg.test_dataloader.dataset.data_root
    inferencer = RetrievalInferencer(cfg, args.checkpoint, args.device)
    records = {
        split: read_annotation(Path(root) / f'{split}.json')[1]
        for split in ('test', 'val')
    }
    inferencer.encode_videos(
        [Path(root) / 'videos' / x['video'] for x in records['test']]
    )
    best = {}
    for split, own in records.items():
        captions = [caption for x in own for caption in x['captions']]
        answers = inferencer.search(captions, 1)
        best[split] = torch.tensor([x.top_score for x in answers])
    good, absent = best['test'], best['val']
    higher = (good[:, None] > absent).double()
    ties = (good[:, None] == absent).double()
    bench.add({'AUROC': float((higher + ties / 2).mean())})
    generator = torch.Generator().manual_seed(0)
    for alpha in args.alphas:
        passed, absent_passed = [], []
        for _ in range(args.splits):
            order = good[torch.randperm(len(good), generator=generator)]
            half = len(good) // 2
            p_value = Calibration.of('', 0, order[:half].tolist()).p_value
            for scores, shares in (
                (order[half:], passed),
                (absent, absent_passed),
            ):
                own = [p_value(score) > alpha for score in scores.tolist()]
                shares.append(statistics.fmean(own))
        bench.add(
            {
                'alpha': alpha,
                'good queries that pass': 100 * statistics.fmean(passed),
                'absent ones refused': 100
                - 100 * statistics.fmean(absent_passed),
            }
        )
    bench.print_table(
        f'{len(good)} good and {len(absent)} absent captions, percent'
    )


if __name__ == '__main__':
    harness.run_mode({x.__name__: x for x in (speed, recall, reject)})
