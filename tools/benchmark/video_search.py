"""An index of made videos: building, loading, and one query from end to end.

    python tools/benchmark/video_search.py --rows 100000 --folder /tmp/index

Rows are prepared by the head of a config from random features, as if videos
had been read; everything after that is what tools/index.py and
tools/search.py do, the text encoder included. A query shortlists by the first
stage and ranks the shortlist with the head. States times, sizes and memory.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import plain_parser, print_table, seconds, start, status

from eaglenet_mm.apis import (
    IndexedFile,
    RetrievalInferencer,
    VideoIndex,
    find_config,
)
from eaglenet_mm.search.precision import PRECISIONS
from eaglenet_mm.search.records import Moments
from eaglenet_mm.search.state_rows import flatten_state
from eaglenet_mm.structures import VideoFeatures

BLOCK = 500
WORDS = ('a', 'man', 'dog', 'red', 'car', 'runs', 'near', 'the', 'sea')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = plain_parser(__doc__)
    add = parser.add_argument
    add('--config', default='eaglenet_msrvtt_vit-b32', help='config or name')
    add('--rows', type=int, default=100_000, help='videos of the index')
    add('--precision', choices=PRECISIONS, default='float16')
    add('--shortlist', type=int, default=100, help='rows that are ranked')
    add('--first-stage', default='auto', help='torch, faiss or milvus')
    add('--queries', type=int, default=50, help='timed, for the median')
    add('--folder', type=Path, default=Path('work_dirs/benchmark_index'))
    add('--reuse', action='store_true', help='take the index that is there')
    add('--device', default='cpu')
    return parser.parse_args()


def make_rows(
    head: Any, device: torch.device, count: int, seed: int
) -> list[Moments]:
    """Prepare rows of random features on the device of the head."""
    frames = head.num_frames
    generator = torch.Generator().manual_seed(seed)
    shape = (count, frames, head.embed_dim)
    # frames of one video resemble each other
    features = torch.randn(count, 1, head.embed_dim, generator=generator)
    features = features + 0.5 * torch.randn(shape, generator=generator)
    mask = torch.ones(shape[:2], dtype=torch.bool)
    video = VideoFeatures(features.to(device), mask.to(device))
    with torch.no_grad():
        state = {
            name: part.cpu()
            for name, part in flatten_state(head.prepare_video(video)).items()
        }
        vectors = head.shortlist_video(video).cpu()
    unit = F.normalize(features, dim=-1)
    return [
        Moments(
            spans=torch.tensor([[0.0, 30.0]], dtype=torch.float64),
            vectors=vectors[row : row + 1],
            frames=unit[row : row + 1],
            frame_times=torch.arange(frames).float()[None],
            state={name: part[row : row + 1] for name, part in state.items()},
            thumbnails=[bytes(4000)],
        )
        for row in range(count)
    ]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function; return seconds and its result."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def build(inferencer: RetrievalInferencer, args: argparse.Namespace) -> dict:
    """Build the index; return times of its parts."""
    head, device = inferencer.encoder.head, torch.device(args.device)
    preparing = writing = 0.0
    shutil.rmtree(args.folder, ignore_errors=True)
    with inferencer.new_index(args.folder, precision=args.precision) as index:
        for first in range(0, args.rows, BLOCK):
            count = min(BLOCK, args.rows - first)
            took, rows = timed(
                lambda: make_rows(head, device, count, first)  # noqa: B023
            )
            preparing += took
            files = [
                (IndexedFile(f'/videos/{first + n}.mp4', 1, 1, 30.0), row)
                for n, row in enumerate(rows)
            ]
            writing += timed(lambda: index.add_many(files))[0]  # noqa: B023
        writing += timed(index.compact)[0]
    return dict(preparing=preparing, writing=writing)


def percentile(values: list[float], share: float) -> float:
    """Give the value below which a share lies, of sorted values."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main() -> None:
    """Build, load, search, add, remove, and report."""
    args = parse_args()
    bench = start(args)
    device = bench.device
    cfg = find_config(args.config)
    for side in ('text_encoder', 'video_encoder'):
        cfg.model[side].pop('pretrained', None)
    inferencer = RetrievalInferencer(
        cfg, device=args.device, untrained=True, first_stage=args.first_stage
    )
    measured: dict[str, Any] = {}
    if not args.reuse:
        measured = build(inferencer, args)
    bench.write(seconds=measured)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    before = status('VmRSS')
    measured['loading'], index = timed(lambda: VideoIndex.load(args.folder))
    inferencer.use(index)
    measured['first stage'] = timed(inferencer.searcher)[0]
    queries = [
        ' '.join(WORDS[(n * 7 + k * 5) % len(WORDS)] for k in range(8))
        for n in range(args.queries)
    ]

    def search(text: str) -> Any:
        return inferencer.search(text, 10, shortlist=args.shortlist)

    measured['first query'] = timed(lambda: search('a warm up'))[0]
    times = [timed(lambda t=text: search(t))[0] for text in queries]
    texts = [
        seconds(lambda t=text: inferencer.encode_texts(t), device)
        for text in queries
    ]
    measured['one query, median'] = statistics.median(times)
    measured['one query, 95 %'] = percentile(times, 0.95)
    measured['of it the text'] = statistics.median(texts)
    bench.write(seconds=measured)
    with VideoIndex.load(args.folder, writable=True) as writer:
        inferencer.use(writer)
        inferencer.searcher()
        head = inferencer.encoder.head
        new = make_rows(head, device, 1, args.rows)[0]
        file = IndexedFile('/videos/new.mp4', 1, 1, 30.0)
        measured['adding one'] = timed(lambda: writer.add(file, new))[0]
        measured['search after it'] = timed(lambda: search('a dog'))[0]
        measured['removing one'] = timed(
            lambda: writer.remove(['/videos/new.mp4'])
        )[0]
        measured['search after that'] = timed(lambda: search('a dog'))[0]
    sizes = {
        'on the disk': size,
        'a row on the disk': size / args.rows,
        'resident before loading': before,
        'resident, own': status('RssAnon'),
        'resident, pages of the index too': status('VmRSS'),
    }
    print_table(
        f'{args.rows} rows, {args.precision}, {args.config}',
        [
            *(
                {'what': name, 'measured': f'{1000 * value:.1f} ms'}
                for name, value in measured.items()
            ),
            *(
                {'what': name, 'measured': f'{value / 2**20:.3f} MiB'}
                for name, value in sizes.items()
            ),
        ],
    )
    bench.write(seconds=measured, bytes=sizes)


if __name__ == '__main__':
    main()
