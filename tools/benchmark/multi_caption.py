"""Evaluating a multi-caption set of the size of MSVD, random features.

    python tools/benchmark/multi_caption.py --json multi_caption.json

Runs the evaluation loop on 670 videos and 27 763 captions whose features are
given, so that encoders are left out: all pairs, then two stages with a
shortlist. Reports time, peak memory, metrics of both directions, and what the
shortlist costs in R1 and gains in time. The brute-force reference scores a
sample of pairs; its time for all pairs is extrapolated from that. Run it from
a checkout.

All pairs take most of an hour on two cores; --captions and --videos
scale it down.
After every stage, and on Ctrl-C within one, the JSON file holds what is known
so far; an interrupted stage keeps its rate and the text-to-video metrics of
the captions it has scored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from brute_force_scores import score_by_brute_force
from common import (
    build_head,
    make_parser,
    seconds,
    start,
    synchronize,
)
from evaluation_stage import make_loop, partial_metrics
from given_features import (
    GivenFeatures,
    deal_captions,
    multi_caption_features,
)
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
from resident_memory import reset_peak, status

MIB = 2**20


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, frames=12)
    add = parser.add_argument
    add('--videos', type=int, default=670, help='videos')
    add('--captions', type=int, default=27763, help='captions of all videos')
    add(
        '--stages',
        nargs='+',
        choices=('all_pairs', 'two_stage'),
        default=['all_pairs', 'two_stage'],
        help='what to run; default: both',
    )
    add(
        '--shortlist',
        type=int,
        default=100,
        help='videos a caption keeps in two stages; 0 leaves that out',
    )
    add(
        '--noise',
        type=float,
        default=7.0,
        help='noise of a caption over the mean frame of its video: the more, '
        'the lower R1',
    )
    add(
        '--sample',
        type=int,
        default=256,
        help='pairs that the reference scores',
    )
    args = parser.parse_args()
    if args.dtype != 'float32':
        parser.error('--dtype: this benchmark is of float32 alone.')
    if args.captions < args.videos:
        parser.error(
            f'--captions {args.captions} are fewer than --videos '
            f'{args.videos}, but every video needs one.'
        )
    if not args.shortlist and 'all_pairs' not in args.stages:
        parser.error('--stages two_stage needs a --shortlist above 0.')
    return args


def run_stage(
    model: GivenFeatures, counts: list[int], shortlist: int, device: Any
) -> dict[str, Any]:
    """Evaluate once.

    Returns:
        dict: Captions scored, seconds, peak memory, metrics, and whether it
        was interrupted.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        loop = make_loop(model, counts, shortlist, work_dir, device)
        exact = reset_peak()
        before = status('VmRSS')
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
        begin = time.perf_counter()
        interrupted = False
        try:
            metrics = loop.run()
            captions = sum(counts)
        except KeyboardInterrupt:
            interrupted = True
            print('\ninterrupted; what has been scored is kept', flush=True)
            metrics = partial_metrics(loop.evaluator)
            blocks = loop.evaluator.metrics[0].results
            captions = sum(len(block['column']) for block in blocks)
        synchronize(device)
        took = time.perf_counter() - begin
    result = dict(
        shortlist=shortlist,
        interrupted=interrupted,
        captions=captions,
        seconds=took,
        pairs_per_second=captions * len(counts) / took,
        peak_extra_bytes=status('VmHWM') - before,
        peak_is_exact=exact,
        score_bytes=4 * captions * len(counts),
        metrics=metrics,
    )
    if device.type == 'cuda':
        result['cuda_peak_bytes'] = torch.cuda.max_memory_allocated(device)
    return result


def reference_rate(
    model: GivenFeatures, sample: int, args: argparse.Namespace
) -> dict[str, float]:
    """Score a sample by brute force and compare it with the head."""
    side = max(1, round(sample**0.5))
    texts = model.text.embeds[:: max(1, len(model.text) // side)][:side]
    frames = model.video.frames[:side]
    device = frames.device

    def run() -> torch.Tensor:
        return score_by_brute_force(model.head, texts, frames, len(texts))

    scores = run()  # warm-up
    took = min(seconds(run, device) for _ in range(max(1, args.repeats)))
    ours = model.head.score_chunked(
        model.head.prepare_text(type(model.text)(texts)),
        model.head.prepare_video(model.video.index_select(slice(side))),
    )
    pairs = scores.numel()
    total = len(model.text) * len(model.video)
    return dict(
        sample_pairs=pairs,
        pairs_per_second=pairs / took,
        extrapolated_seconds=took / pairs * total,
        largest_difference=float((ours - scores).abs().max()),
    )


def compare(stages: dict[str, dict], reference: dict) -> dict[str, float]:
    """Set the stages beside each other; only finished ones can be."""
    found: dict[str, float] = {}
    exact, short = stages.get('all_pairs'), stages.get('two_stage')
    if exact:
        found['ratio_to_reference'] = (
            exact['pairs_per_second'] / reference['pairs_per_second']
        )
    if exact and short and not short['interrupted']:
        if not exact['interrupted']:
            found['t2v_R1_change'] = (
                short['metrics']['t2v/R1'] - exact['metrics']['t2v/R1']
            )
        found['two_stage_ratio'] = (
            short['pairs_per_second'] / exact['pairs_per_second']
        )
        found['shortlist_recall'] = short['metrics'].get(
            't2v/shortlist_recall', 100.0
        )
    return found


def table_rows(stages: dict[str, dict], reference: dict) -> list[dict]:
    """Pick what the table shows."""
    rows = []
    for name, stage in stages.items():
        metrics = stage['metrics']
        rows.append(
            {
                'stage': name + (' (stopped)' if stage['interrupted'] else ''),
                'captions': stage['captions'],
                's': stage['seconds'],
                'pairs/s': stage['pairs_per_second'],
                'peak extra MiB': stage['peak_extra_bytes'] / MIB,
                'scores MiB': stage['score_bytes'] / MIB,
                't2v R1': metrics.get('t2v/R1'),
                'v2t R1': metrics.get('v2t/R1'),
                'recall at k': metrics.get('t2v/shortlist_recall'),
            }
        )
    blank = dict.fromkeys(rows[0]) if rows else {}
    extrapolated = {
        'stage': 'reference (extrapolated)',
        's': reference['extrapolated_seconds'],
        'pairs/s': reference['pairs_per_second'],
    }
    return [*rows, {**blank, **extrapolated}]


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    device = start(args)
    machine = describe_machine(device)
    print_machine(machine)
    head = build_head(args, args.frames).eval()
    counts = deal_captions(args.captions, args.videos)
    model = GivenFeatures(
        head, *multi_caption_features(args, counts, args.frames, args.noise)
    ).to(device)
    reference = reference_rate(model, args.sample, args)
    planned = dict(all_pairs=0, two_stage=args.shortlist)
    if not args.shortlist:
        del planned['two_stage']
    stages: dict[str, dict] = {}

    def write() -> dict[str, float]:
        found = compare(stages, reference)
        write_report(
            args,
            machine,
            reference=reference,
            stages=stages,
            comparison=found,
        )
        return found

    for name, shortlist in planned.items():
        if name not in args.stages:
            continue
        print(f'{name.replace("_", " ")}:', flush=True)
        stages[name] = run_stage(model, counts, shortlist, device)
        found = write()  # before the next stage starts
        if stages[name]['interrupted']:
            break
    print_table(
        f'{args.videos} videos, {args.captions} captions, D={args.dim}, '
        f'F={args.frames}, S={args.candidates}',
        table_rows(stages, reference),
    )
    for key, value in found.items():
        print(f'{key}: {value:.4g}')
    if any(stage['interrupted'] for stage in stages.values()):
        raise SystemExit(130)


if __name__ == '__main__':
    main()
