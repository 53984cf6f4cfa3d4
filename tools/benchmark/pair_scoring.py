"""Scoring all pairs of some texts and videos, as an evaluation does.

    python tools/benchmark/pair_scoring.py --json pair_scoring.json

Compares the head, preparation of both sides included, with the brute-force
reference in the same run: time, pairs and operations a second, what share of
the machine's matrix-product peak is reached, the time its memory needs for
what is read and written, and how far scores differ. Run it from a checkout.
Without --texts, --videos and --frames it measures 32 x 32 and 64 x 64 pairs at
12 frames, and 32 x 32 pairs at 64 frames, the size of DiDeMo, where the
reference scores 8 texts only. --compiled measures the head under torch.compile
instead, against itself as it is.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from arithmetic import brute_force_terms, factorised_terms
from brute_force_scores import score_by_brute_force
from harness import (
    build_head,
    interleaved_medians,
    make_parser,
    measure_cases,
    precision,
    print_table,
    random_features,
    seconds,
    start,
    tensor_bytes,
)
from rates import count_work, measure_peaks, rate
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures

#: Texts whose scores are also computed in float64, and with how many videos.
CHECKED_TEXTS = 2
CHECKED_VIDEOS = 64


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


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, several_dtypes=True)
    add = parser.add_argument
    add('--texts', type=int, help='texts Bt')
    add('--videos', type=int, help='videos Bv')
    add(
        '--reference-texts',
        type=int,
        help='texts that the reference scores; default: all',
    )
    add(
        '--reference-pairs',
        type=int,
        default=1024,
        help='most pairs the reference expands at once, for its memory',
    )
    add('--peak-size', type=int, help='side of the products of the peak')
    add(
        '--compiled',
        action='store_true',
        help='measure compile_score instead, against the head without it',
    )
    return parser.parse_args()


def choose_cases(args: argparse.Namespace) -> list[Case]:
    """One case if a size was given, else the default ones."""
    if not any((args.texts, args.videos, args.frames)):
        return [
            case._replace(
                reference_texts=min(
                    case.texts, args.reference_texts or case.reference_texts
                )
            )
            for case in DEFAULT_CASES
        ]
    texts = args.texts or 32
    reference_texts = min(texts, args.reference_texts or texts)
    return [Case(texts, args.videos or 32, args.frames or 12, reference_texts)]


def fastest_rows(
    run: Callable[[int, int], Any], case: Case, limit: int, device: Any
) -> int:
    """Find how many texts at once suit the reference best."""
    most = max(1, min(case.reference_texts, limit // case.videos))
    choices = sorted({1, min(4, most), most})
    run(1, 1)  # warm-up
    cost = {}
    for rows in choices:
        texts = max(rows, min(4, case.reference_texts))
        cost[rows] = seconds(lambda: run(texts, rows), device) / texts  # noqa: B023
    return min(cost, key=cost.__getitem__)


def score_all(
    head: EagleNetHead,
    text: TextFeatures,
    video: VideoFeatures,
    args: argparse.Namespace,
) -> Tensor:
    """Prepare and score all pairs."""
    with torch.no_grad(), precision(args):
        return head.score_chunked(
            head.prepare_text(text), head.prepare_video(video)
        )


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one size in one precision."""
    device, peaks = torch.device(args.device), measure_peaks(args)
    head = build_head(args, case.frames).eval()
    text, video = random_features(args, case.texts, case.videos, case.frames)
    scored = text.embeds[: case.reference_texts]

    def ours() -> Tensor:
        return score_all(head, text, video, args)

    def reference(texts: int, rows: int) -> Tensor:
        with precision(args):
            return score_by_brute_force(
                head, scored[:texts], video.frames, rows
            ).float()

    rows = fastest_rows(reference, case, args.reference_pairs, device)
    ours_work = count_work(ours)  # warm-up at the same time
    reference_work = count_work(lambda: reference(len(scored), rows))
    times = interleaved_medians(
        {'ours': ours, 'reference': lambda: reference(len(scored), rows)},
        args.repeats,
        device,
        dict(ours=3),
    )
    with torch.no_grad(), precision(args):
        states = head.prepare_text(text), head.prepare_video(video)
    pairs = case.texts * case.videos
    reference_pairs = len(scored) * case.videos
    sizes = args.dim, case.frames, args.candidates, args.heads, args.layers
    result = dict(
        texts=case.texts,
        videos=case.videos,
        frames=case.frames,
        dtype=args.dtype,
        peak_gflop_per_second=peaks.flops / 1e9,
        copy_gbyte_per_second=peaks.bandwidth / 1e9,
        ours=rate(ours_work, pairs, times['ours'], peaks),
        reference=dict(
            rate(reference_work, reference_pairs, times['reference'], peaks),
            rows_at_once=rows,
        ),
        bytes_per_text=tensor_bytes(states[0].tensors()) / case.texts,
        bytes_per_video=tensor_bytes(states[1].tensors()) / case.videos,
        bytes_per_pair=head.bytes_per_pair(training=False),
        formula_mflop_per_pair=dict(
            reference=sum(brute_force_terms(*sizes).values()) / 1e6,
            ours=(
                sum(factorised_terms(*sizes).values()) / 1e6
                if args.layers <= 2
                else None
            ),
        ),
        **differences(head, scored, video.frames, ours(), rows),
    )
    found, other = result['ours'], result['reference']
    result['ratio'] = found['pairs_per_second'] / other['pairs_per_second']
    result['flop_ratio'] = other['mflop_per_pair'] / found['mflop_per_pair']
    return result


def measure_compiled(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one size with ``compile_score`` and without, in turn."""
    device = torch.device(args.device)
    text, video = random_features(args, case.texts, case.videos, case.frames)
    plain, compiled = (
        build_head(args, case.frames, compile_score=option).eval()
        for option in (False, True)
    )

    def score(head: EagleNetHead) -> Tensor:
        return score_all(head, text, video, args)

    first = seconds(lambda: score(compiled), device)
    times = interleaved_medians(
        {'compiled': lambda: score(compiled), 'plain': lambda: score(plain)},
        3 * args.repeats,
        device,
    )
    return dict(
        texts=case.texts,
        videos=case.videos,
        frames=case.frames,
        dtype=args.dtype,
        first_seconds=first,
        seconds=times['compiled'],
        pairs_per_second=case.texts * case.videos / times['compiled'],
        seconds_without=times['plain'],
        largest_difference=float((score(compiled) - score(plain)).abs().max()),
        failed=compiled.compiled_score.has_failed,
    )


def differences(
    head: EagleNetHead, text: Tensor, frames: Tensor, scores: Tensor, rows: int
) -> dict[str, Any]:
    """Tell how far scores are from the reference, and both from float64."""
    plain = score_by_brute_force(head, text, frames, rows)
    checked, frames = text[:CHECKED_TEXTS], frames[:CHECKED_VIDEOS]
    exact = score_by_brute_force(
        copy.deepcopy(head).double(), checked.double(), frames.double(), 1
    )
    block = slice(len(checked)), slice(len(frames))
    return dict(
        largest_difference=float((scores[: len(plain)] - plain).abs().max()),
        error_float64=dict(
            texts=len(checked),
            videos=len(frames),
            ours=float((scores[block] - exact).abs().max()),
            reference=float((plain[block] - exact).abs().max()),
        ),
    )


def table_row(result: dict) -> dict[str, Any]:
    """Pick what the table shows."""
    ours, reference = result['ours'], result['reference']
    return {
        'texts x videos x frames': 'x'.join(
            str(result[key]) for key in ('texts', 'videos', 'frames')
        ),
        'type': result['dtype'],
        'ours s': ours['seconds'],
        'ours pairs/s': ours['pairs_per_second'],
        'reference pairs/s': reference['pairs_per_second'],
        'ratio': result['ratio'],
        'MFLOP/pair': ours['mflop_per_pair'],
        'reference MFLOP/pair': reference['mflop_per_pair'],
        'FLOP ratio': result['flop_ratio'],
        'GFLOP/s': ours['gflop_per_second'],
        'of peak': ours['peak_fraction'],
        'reference of peak': reference['peak_fraction'],
        's to move its bytes': ours['seconds_at_bandwidth'],
        'difference': result['largest_difference'],
        'to float64': result['error_float64']['ours'],
    }


def print_results(args: argparse.Namespace, results: list[dict]) -> None:
    """Print the tables."""
    title = f'Scoring pairs, D={args.dim}, S={args.candidates}'
    if args.compiled:
        print_table(f'{title}, under torch.compile', results)
        return
    print_table(title, [table_row(result) for result in results])
    print_table(
        'Bytes',
        [
            {
                'frames': result['frames'],
                'of a prepared text': result['bytes_per_text'],
                'of a prepared video': result['bytes_per_video'],
                'of a pair in a chunk': result['bytes_per_pair'],
                'written a pair': result['ours']['written_bytes_per_pair'],
                'reference written a pair': result['reference'][
                    'written_bytes_per_pair'
                ],
            }
            for result in results
        ],
    )


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    bench = start(args)
    run = measure_compiled if args.compiled else measure
    results = measure_cases(bench, choose_cases(args), run)
    if results:
        print_results(args, results)


if __name__ == '__main__':
    main()
