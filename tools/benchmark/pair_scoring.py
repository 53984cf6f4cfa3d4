"""Scoring all pairs of some texts and videos, as an evaluation does.

    python tools/benchmark/pair_scoring.py --json pair_scoring.json

Compares the head, preparation of both sides included, with the brute-force
reference in the same run. Without --texts, --videos and --frames it measures
32 x 32 and 64 x 64 pairs at 12 frames, and 32 x 32 pairs at 64 frames, the
size of DiDeMo, where the reference scores 8 texts only. --compiled times the
head under torch.compile as well.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any, NamedTuple

import harness
import torch
from rates import compare
from tables import markdown_table
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from tools.benchmark.reference.brute_force_training import score_by_brute_force


class Case(NamedTuple):
    """Sizes of a measurement; the reference scores the first texts only."""

    texts: int
    videos: int
    frames: int
    reference_texts: int


DEFAULT_CASES = (
    Case(32, 32, 12, 32),
    Case(64, 64, 12, 64),
    Case(32, 32, 64, 8),
)


def measure(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one size in one precision."""
    device = torch.device(args.device)
    plain = harness.build_head(args, case.frames).eval()
    text, video = harness.random_features(args, *case[:3])
    scored = text.embeds[: case.reference_texts]

    def ours(head: EagleNetHead = plain) -> Tensor:
        with torch.no_grad(), harness.precision(args):
            return head.score_chunked(
                head.prepare_text(text), head.prepare_video(video)
            )

    def reference(texts: int, rows: int) -> Tensor:
        with harness.precision(args):
            return score_by_brute_force(
                plain, scored[:texts], video.frames, rows
            ).float()

    # how many texts at once suit the reference best
    most = max(1, min(len(scored), args.reference_pairs // case.videos))
    reference(1, 1)  # warm-up
    cost = {}
    for rows in sorted({1, min(4, most), most}):
        texts = max(rows, min(4, len(scored)))
        took = harness.seconds(lambda: reference(texts, rows), device)  # noqa: B023
        cost[rows] = took / texts
    rows = min(cost, key=cost.__getitem__)
    runs = {'ours': ours, 'reference': lambda: reference(len(scored), rows)}
    if args.compiled:
        fast = harness.build_head(args, case.frames, compile_score=True).eval()
        runs['compiled'] = lambda: ours(fast)
        first = harness.seconds(runs['compiled'], device)
    pairs = dict.fromkeys(runs, case.texts * case.videos)
    pairs['reference'] = len(scored) * case.videos
    about = {
        'texts x videos x frames': 'x'.join(map(str, case[:3])),
        'type': args.dtype,
    }
    found = [
        {**about, **row}
        for row in compare(runs, pairs, args, ('ours', 'reference'))
    ]
    expected = score_by_brute_force(plain, scored, video.frames, rows)
    # two texts and 64 videos are enough
    exact = score_by_brute_force(
        copy.deepcopy(plain).double(),
        scored[:2].double(),
        video.frames[:64].double(),
        1,
    )
    for row, name in zip(found, runs, strict=True):
        scores = expected if name == 'reference' else runs[name]()
        difference = scores[: len(expected)] - expected
        row['difference'] = float(difference.abs().max())
        row['to float64'] = float((scores[:2, :64] - exact).abs().max())
    with torch.no_grad(), harness.precision(args):
        states = plain.prepare_text(text), plain.prepare_video(video)
    text_bytes, video_bytes = (
        sum(x.nbytes for x in state.tensors()) for state in states
    )
    found[0]['bytes'] = {
        'F': case.frames,
        'prepared text, B': text_bytes / case.texts,
        'prepared video, B': video_bytes / case.videos,
        'pair in a chunk, B': plain.bytes_per_pair(training=False),
        'written a pair, B': found[0]['B written a pair'],
        'reference, B': found[1]['B written a pair'],
    }
    if args.compiled:
        found[2]['first s'] = first
        if fast.compiled_score.has_failed:
            found[2]['head'] = 'failed to compile'
    return found


def main() -> None:
    """Measure, print and write."""
    bench = harness.start(
        __doc__,
        'device',
        'head',
        'dtype',
        texts=(int, 'texts Bt'),
        videos=(int, 'videos Bv'),
        reference_texts=(int, 'texts that the reference scores'),
        reference_pairs=(1024, 'most pairs the reference expands at once'),
        peak_size=(int, 'side of the products of the peak'),
        compiled=(False, 'time compile_score as well'),
    )
    args = bench.args
    cases = DEFAULT_CASES
    if args.texts or args.videos or args.frames:
        texts = args.texts or 32
        cases = (Case(texts, args.videos or 32, args.frames or 12, texts),)
    if args.reference_texts:
        cases = tuple(
            case._replace(reference_texts=min(case[0], args.reference_texts))
            for case in cases
        )
    bench.measure(cases, measure)
    bench.print_table(f'Scoring pairs, D={args.dim}, S={args.candidates}')
    sizes = [row['bytes'] for row in bench.rows if 'bytes' in row]
    print(f'\n{markdown_table(sizes)}')


if __name__ == '__main__':
    main()
