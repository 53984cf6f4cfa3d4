"""Scoring all pairs of some texts and videos, as an evaluation does.

    python tools/benchmark/pair_scoring.py --json pair_scoring.json

Compares the head, preparation of both sides included, with the brute-force
reference in the same run. Without --texts, --videos and --frames it measures
32 x 32 and 64 x 64 pairs at 12 frames, and 32 x 32 pairs at 64 frames, the
size of DiDeMo, where the reference scores 8 texts only. --compiled measures
the head under torch.compile instead, against itself as it is.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any, NamedTuple

import harness
import torch
from rates import count_work, measure_peaks, rate
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force import score_pairs
from tools.benchmark.reference.brute_force_training import score_options
from tools.benchmark.reference.release_weights import release_weights


class Case(NamedTuple):
    """Sizes of one measurement; the reference scores the first texts only."""

    texts: int
    videos: int
    frames: int
    reference_texts: int


DEFAULT_CASES = (
    Case(32, 32, 12, 32),
    Case(64, 64, 12, 64),
    Case(32, 32, 64, 8),
)

# Operations of a pair, by docs/performance.md: a product of m x k and k x n
# numbers counts 2 m k n. What is computed once a text or once a video is left
# out, and so are elementwise operations.


def brute_force_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair when every pair is expanded to a graph."""
    nodes = frames + 1 + candidates
    hidden, narrow = layers - 1, dim // heads
    return {
        'hidden projections': hidden * 3 * 2 * nodes * dim * dim,
        'hidden self projection': hidden * 2 * nodes * dim * narrow,
        'hidden logits': hidden * 3 * 2 * 2 * nodes * dim,
        'hidden messages': hidden * 3 * 2 * nodes * nodes * dim,
        'last projections': 3 * 2 * nodes * dim * heads * dim,
        'last self projection': 2 * nodes * dim * dim,
        'last logits': 3 * 2 * 2 * nodes * heads * dim,
        'last messages': 3 * 2 * nodes * nodes * heads * dim,
        'radius': 2 * frames * dim + 2 * frames * dim,
        'pooling': 3 * 2 * dim * dim + 2 * 2 * frames * dim,
    }


def factorised_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair in the head; of 1 or 2 layers."""
    nodes = 1 + candidates
    terms = {
        'radius': 2 * frames * dim + 2 * frames * dim,
        'enriched text': 2 * candidates * dim,
        'pooling': 2 * dim * dim + 2 * 2 * frames * dim,
    }
    if layers == 1:
        return {'last logits': 2 * candidates * dim * heads, **terms}
    projects_first = frames > candidates
    width = dim + dim // heads + 4 * heads + projects_first * dim
    to_frames = 2 * frames * candidates * dim
    return {
        'candidate products': 2 * candidates * dim * width,
        'text-text messages': 2 * nodes * candidates * dim,
        'frame-to-text messages': 2 * nodes * frames * dim,
        'text-to-frame sums': to_frames * (1 if projects_first else heads),
        'text-to-frame projection': (
            0 if projects_first else 2 * frames * dim * dim
        ),
        'last logits': 2 * (nodes + frames) * dim * heads,
        **terms,
    }


@torch.no_grad()
def score_by_brute_force(
    head: EagleNetHead, text: Tensor, frames: Tensor, rows: int
) -> Tensor:
    """Score by the reference, some texts at once, shape ``(Bt, Bv)``."""
    weights, options = release_weights(head), score_options(head)
    noise = head.noise_table[:, None]  # (S, 1, D)
    scores = [
        score_pairs(
            part,
            frames,
            noise.expand(-1, len(part) * len(frames), -1),
            weights,
            **options,
        )['logits']
        for part in text.split(rows)
    ]
    return torch.cat(scores)


def score_all(
    head: EagleNetHead,
    text: TextFeatures,
    video: VideoFeatures,
    args: argparse.Namespace,
) -> Tensor:
    """Prepare and score all pairs."""
    with torch.no_grad(), harness.precision(args):
        return head.score_chunked(
            head.prepare_text(text), head.prepare_video(video)
        )


def measure(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one size in one precision."""
    device, peaks = torch.device(args.device), measure_peaks(args)
    head = harness.build_head(args, case.frames).eval()
    text, video = harness.random_features(args, *case[:3])
    scored = text.embeds[: case.reference_texts]

    def ours() -> Tensor:
        return score_all(head, text, video, args)

    def reference(texts: int, rows: int) -> Tensor:
        with harness.precision(args):
            return score_by_brute_force(
                head, scored[:texts], video.frames, rows
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
    works = count_work(ours), count_work(lambda: reference(len(scored), rows))
    times = harness.interleaved_medians(
        {'ours': ours, 'reference': lambda: reference(len(scored), rows)},
        args.repeats,
        device,
    )
    found = rate(works[0], case.texts * case.videos, times['ours'], peaks)
    other = rate(
        works[1], len(scored) * case.videos, times['reference'], peaks
    )
    with torch.no_grad(), harness.precision(args):
        states = head.prepare_text(text), head.prepare_video(video)
    sizes = [
        sum(x.numel() * x.element_size() for x in state.tensors())
        for state in states
    ]
    row = {
        'texts x videos x frames': 'x'.join(map(str, case[:3])),
        'type': args.dtype,
        'ours s': found['seconds'],
        'ours pairs/s': found['pairs_per_second'],
        'reference pairs/s': other['pairs_per_second'],
        'ratio': found['pairs_per_second'] / other['pairs_per_second'],
        'MFLOP/pair': found['mflop_per_pair'],
        'reference MFLOP/pair': other['mflop_per_pair'],
        'FLOP ratio': other['mflop_per_pair'] / found['mflop_per_pair'],
        'GFLOP/s': found['gflop_per_second'],
        'of peak': found['peak_fraction'],
        'reference of peak': other['peak_fraction'],
        's at that peak': found['seconds_at_peak'],
        's to move its bytes': found['seconds_at_bandwidth'],
        **differences(head, scored, video.frames, ours(), rows),
        'bytes of a prepared text': sizes[0] / case.texts,
        'bytes of a prepared video': sizes[1] / case.videos,
        'bytes of a pair in a chunk': head.bytes_per_pair(training=False),
        'bytes written a pair': found['written_bytes_per_pair'],
        'bytes the reference writes': other['written_bytes_per_pair'],
        'ours': found,
        'reference': dict(other, rows_at_once=rows),
    }
    return [row]


def differences(
    head: EagleNetHead, text: Tensor, frames: Tensor, scores: Tensor, rows: int
) -> dict[str, float]:
    """Tell how far scores are from the reference, and both from float64."""
    plain = score_by_brute_force(head, text, frames, rows)
    # some of them are enough
    text, frames = text[:2], frames[:64]
    exact = score_by_brute_force(
        copy.deepcopy(head).double(), text.double(), frames.double(), 1
    )

    def largest(found: Tensor, expected: Tensor) -> float:
        block = found[: len(expected), : expected.shape[1]]
        return float((block - expected).abs().max())

    return {
        'difference': largest(scores, plain),
        'to float64': largest(scores, exact),
        'reference to float64': largest(plain, exact),
    }


def measure_compiled(
    case: Case, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure one size with ``compile_score`` and without, in turn."""
    text, video = harness.random_features(args, *case[:3])
    plain, compiled = (
        harness.build_head(args, case.frames, compile_score=option).eval()
        for option in (False, True)
    )

    def score(head: EagleNetHead) -> Tensor:
        return score_all(head, text, video, args)

    first = harness.seconds(lambda: score(compiled), args.device)
    times = harness.interleaved_medians(
        {'compiled': lambda: score(compiled), 'plain': lambda: score(plain)},
        3 * args.repeats,
        args.device,
    )
    row = {
        'texts x videos x frames': 'x'.join(map(str, case[:3])),
        'type': args.dtype,
        'compiled': (
            'failed' if compiled.compiled_score.has_failed else 'yes'
        ),
        'ours s': times['compiled'],
        'ours pairs/s': case.texts * case.videos / times['compiled'],
        's without': times['plain'],
        's of the first': first,
        'difference': float((score(compiled) - score(plain)).abs().max()),
    }
    return [row]


def main() -> None:
    """Measure, print and write."""
    parser = harness.make_parser(__doc__, 'device', 'head', 'dtype')
    harness.add_options(
        parser,
        texts=(int, 'texts Bt'),
        videos=(int, 'videos Bv'),
        reference_texts=(int, 'texts that the reference scores'),
        reference_pairs=(1024, 'most pairs the reference expands at once'),
        peak_size=(int, 'side of the products of the peak'),
        compiled=(False, 'measure compile_score instead'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    cases = DEFAULT_CASES
    if args.texts or args.videos or args.frames:
        texts = args.texts or 32
        cases = (Case(texts, args.videos or 32, args.frames or 12, texts),)
    if args.reference_texts:
        cases = tuple(
            case._replace(reference_texts=min(case[0], args.reference_texts))
            for case in cases
        )
    bench.measure(cases, measure_compiled if args.compiled else measure)
    bench.print_table(f'Scoring pairs, D={args.dim}, S={args.candidates}')


if __name__ == '__main__':
    main()
