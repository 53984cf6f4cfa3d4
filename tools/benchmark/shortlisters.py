"""Measure the first stages of the search on a synthetic gallery.

    python tools/benchmark/shortlisters.py --rows 100000 --dim 512
    python tools/benchmark/shortlisters.py --data uniform --stages faiss

Each first stage runs in a process of its own. Measured are: building by
``synchronise`` from a file; one query at a time for ``--count`` rows; the
share of the true highest among them; adding and removing 100 rows; and what
private memory (RssAnon) and disk it all takes.

``--data clustered`` draws topics of about 200 videos that lie around a
hundred broader themes, and queries near to videos; ``uniform`` draws
everything independently, where no index of cells can leave anything out.
Real vectors lie between the two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
from resident_memory import status
from torch import Tensor

from eaglenet_mm.search.shortlisters import build_shortlister

STAGES: dict[str, str | dict[str, Any]] = {
    'torch': 'torch',
    'torch-float16': dict(type='TorchShortlister', dtype='float16'),
    'faiss-flat': dict(type='FaissShortlister', flat_rows=2**62),
    'faiss': 'faiss',
    'milvus': 'milvus',
}
QUERIES, CHANGED = 200, 100


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--rows', type=int, default=100_000, help='videos of the gallery')
    add('--dim', type=int, default=512, help='width of a vector')
    add('--count', type=int, default=100, help='length of the shortlist')
    add('--data', choices=('clustered', 'uniform'), default='clustered')
    add('--stages', nargs='+', choices=STAGES, default=list(STAGES))
    add('--threads', type=int, default=2, help='of one process')
    add('--repeats', type=int, default=5, help='times rows come and go')
    add('--seed', type=int, default=0, help='of the vectors')
    add('--folder', type=Path, help='for files; default: a temporary one')
    add('--json', type=Path, metavar='FILE', help='where to write the result')
    return parser.parse_args()


def draw_vectors(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Draw gallery and queries of unit length."""
    torch.manual_seed(args.seed)
    gallery = torch.randn(args.rows, args.dim)
    queries = torch.randn(QUERIES, args.dim)
    if args.data == 'clustered':
        topics = max(1, args.rows // 200)
        centres = torch.randn(100, args.dim)[torch.randint(100, (topics,))]
        centres += torch.randn(topics, args.dim)
        gallery += 2 * centres[torch.randint(topics, (args.rows,))]
        # a sentence says part of what is in one video
        near = gallery[torch.randint(args.rows, (QUERIES,))]
        queries = F.normalize(near, dim=1) + F.normalize(queries, dim=1)
    return F.normalize(gallery, dim=1), F.normalize(queries, dim=1)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time one run, in milliseconds."""
    begin = time.perf_counter()
    result = run()
    return 1e3 * (time.perf_counter() - begin), result


def measure(
    stage: str, args: argparse.Namespace, files: Path, results: Any
) -> None:
    """Measure one first stage; runs in a process of its own."""
    torch.set_num_threads(args.threads)
    gallery = np.load(files / 'gallery.npy', mmap_mode='r')
    queries = torch.from_numpy(np.load(files / 'queries.npy'))
    wanted = np.load(files / 'wanted.npy')
    folder = files / stage
    folder.mkdir()

    def read_vectors(row_ids: Tensor) -> Tensor:
        return torch.from_numpy(gallery[row_ids.numpy()])

    row_ids = torch.arange(args.rows)
    torch.zeros(64, args.dim) @ queries.t()  # libraries take theirs first
    before = status('RssAnon')
    shortlister = build_shortlister(
        STAGES[stage],
        embed_dim=args.dim,
        num_rows=args.rows,
        folder=str(folder),
    )
    build, _ = timed(lambda: shortlister.synchronise(row_ids, read_vectors))
    for query in queries[:10]:  # first calls load what they need
        shortlister.search(query[None], args.count)
    memory = status('RssAnon') - before
    found = [
        timed(lambda x=query: shortlister.search(x[None], args.count))
        for query in queries
    ]
    times = [milliseconds for milliseconds, _ in found]
    hits = [
        len(set(ids[0].tolist()) & set(highest))
        for (_, (_, ids)), highest in zip(found, wanted.tolist(), strict=True)
    ]
    changed = row_ids[:: max(1, args.rows // CHANGED)][:CHANGED]
    vectors = read_vectors(changed)
    removing, adding = [], []
    for _ in range(args.repeats):
        removing.append(timed(lambda: shortlister.remove(changed))[0])
        adding.append(timed(lambda: shortlister.add(changed, vectors))[0])
    exact = shortlister.exact
    shortlister.close()
    disk = sum(x.stat().st_size for x in folder.rglob('*') if x.is_file())
    results.put(
        {
            'first stage': stage,
            'exact': exact,
            'build s': build / 1e3,
            'query ms': statistics.median(times),
            '95 % ms': statistics.quantiles(times, n=20)[-1],
            'recall': sum(hits) / wanted.size,
            'remove ms': statistics.median(removing),
            'add ms': statistics.median(adding),
            'memory MB': memory / 1e6,
            'disk MB': disk / 1e6,
        }
    )


def run(args: argparse.Namespace, files: Path) -> list[dict[str, Any]]:
    """Measure all first stages, one after another."""
    gallery, queries = draw_vectors(args)
    wanted = torch.cat(
        [(x @ gallery.t()).topk(args.count).indices for x in queries.split(32)]
    )
    np.save(files / 'gallery.npy', gallery.numpy())
    np.save(files / 'queries.npy', queries.numpy())
    np.save(files / 'wanted.npy', wanted.numpy())
    del gallery
    context = common.fork_server()
    rows = []
    for stage in args.stages:
        results = context.Queue()
        process = context.Process(
            target=measure, args=(stage, args, files, results)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'{stage} failed; see above.')
        rows.append(results.get())
        print('{first stage}: {query ms:.1f} ms a query'.format(**rows[-1]))
    return rows


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    machine = describe_machine(torch.device('cpu'))
    print_machine(machine)
    with tempfile.TemporaryDirectory(dir=args.folder) as files:
        rows = run(args, Path(files))
    print_table(
        f'{args.rows} {args.data} vectors of width {args.dim}, the '
        f'{args.count} highest; {CHANGED} rows removed and added',
        rows,
    )
    write_report(args, machine, stages=rows)


if __name__ == '__main__':
    main()
