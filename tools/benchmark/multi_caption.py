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
import logging
import tempfile
import time
from typing import Any

import torch
from brute_force_scores import score_by_brute_force
from harness import (
    MIB,
    build_head,
    make_parser,
    print_table,
    reset_peak,
    seconds,
    start,
    status,
    synchronize,
)
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eaglenet_mm.evaluation.functional import (
    shortlist_recall,
    summarize_ranks,
    text_to_video_ranks,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)


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


class _AsItIs(BaseDataPreprocessor):
    """Takes items that are a batch already."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return the batch."""
        return self.cast_data(data)


class GivenFeatures(BaseModel):
    """Looks features up where a retriever would encode.

    What stands for pixels is the number of a video, what stands for token ids
    the number of a caption.
    """

    def __init__(
        self, head: BasePairHead, text: TextFeatures, video: VideoFeatures
    ) -> None:
        super().__init__(_AsItIs())
        self.head = head
        self.text = text
        self.video = video

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        """Look up captions, numbers of shape ``(Bt, 1)``."""
        return self.text.index_select(
            token_ids[:, 0].to(self.text.embeds.device)
        )

    def encode_video(self, pixels: Tensor, _: Tensor) -> VideoFeatures:
        """Look up videos, numbers of shape ``(Bv, 1)``."""
        return self.video.index_select(
            pixels[:, 0].to(self.video.frames.device)
        )

    def forward(self, *_: Any, **__: Any) -> None:
        """Nothing calls it: the loop encodes and scores by parts."""
        raise TypeError('GivenFeatures is for evaluation loops only.')


class NumberedVideos(Dataset):
    """Videos and captions that are numbers; one batch an item."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        self.metainfo = dict(
            dataset='random features',
            split='test',
            protocol='multi-caption',
            num_videos=len(counts),
            num_captions=self.starts[-1],
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> dict:
        captions = range(self.starts[index], self.starts[index + 1])
        sample = RetrievalDataSample(
            metainfo=dict(
                video_id=str(index),
                video_index=index,
                caption_indices=list(captions),
            )
        )
        return dict(
            inputs=dict(
                pixels=torch.tensor([[index]]),
                frame_mask=torch.ones(1, 1, dtype=torch.bool),
                token_ids=torch.tensor(captions)[:, None],
                caption_counts=torch.tensor([len(captions)]),
            ),
            data_samples=[sample],
        )


def deal_captions(captions: int, videos: int) -> list[int]:
    """Give every video equally many captions, the first ones one more."""
    return [
        captions // videos + (index < captions % videos)
        for index in range(videos)
    ]


def multi_caption_features(
    args: argparse.Namespace, counts: list[int], frames: int, noise: float
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw videos, and captions that are their mean frame and noise."""
    generator = torch.Generator().manual_seed(args.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scene = draw(len(counts), 1, args.dim)  # what the frames share
    video = scene + draw(len(counts), frames, args.dim)
    mean = video.mean(dim=1)
    scale = noise * mean.norm(dim=-1, keepdim=True) / args.dim**0.5
    repeats = torch.tensor(counts)
    text = mean.repeat_interleave(repeats, dim=0)
    text = text + scale.repeat_interleave(repeats, dim=0) * draw(
        sum(counts), args.dim
    )
    mask = torch.ones(video.shape[:2], dtype=torch.bool)
    return (
        TextFeatures(text.to(args.device)),
        VideoFeatures(video.to(args.device), mask.to(args.device)),
    )


def make_loop(
    model: GivenFeatures,
    counts: list[int],
    shortlist: int,
    work_dir: str,
    device: torch.device,
) -> Any:
    """Build the test loop of a runner, as a config would."""
    runner = Runner(
        model=model,
        work_dir=work_dir,
        test_dataloader=DataLoader(NumberedVideos(counts), batch_size=None),
        test_cfg=dict(type='RetrievalTestLoop', shortlist=shortlist),
        test_evaluator=dict(type='RetrievalRankMetric'),
        default_scope='eaglenet_mm',
        default_hooks=dict(
            timer=None,
            logger=None,
            param_scheduler=None,
            checkpoint=None,
            sampler_seed=None,
        ),
        experiment_name=f'multi_caption_{shortlist}',
        log_level=logging.WARNING,
    )
    loop = runner.build_test_loop(runner._test_loop)
    model.to(device)  # the runner has taken a GPU if there is one
    return loop


def partial_metrics(evaluator: Any) -> dict[str, float]:
    """Text-to-video metrics of the rows that have reached the metric."""
    blocks = evaluator.metrics[0].results
    if not blocks:
        return {}
    scores, columns = (
        torch.cat([block[key] for block in blocks])
        for key in ('scores', 'column')
    )
    summary = summarize_ranks(text_to_video_ranks(scores, columns).ranks)
    summary['shortlist_recall'] = shortlist_recall(scores, columns)[0]
    return {f't2v/{key}': value for key, value in summary.items()}


def run_stage(
    model: GivenFeatures, counts: list[int], shortlist: int, device: Any
) -> dict[str, Any]:
    """Evaluate once."""
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
    bench = start(args)
    device = bench.device
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
        bench.write(reference=reference, stages=stages, comparison=found)
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
