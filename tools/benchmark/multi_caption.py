"""Evaluating a multi-caption set of the size of MSVD, random features.

    python tools/benchmark/multi_caption.py --json multi_caption.json

Runs the evaluation loop on 670 videos and 27 763 captions whose features are
given: all pairs, then two stages with a shortlist. The brute-force reference
scores a sample of pairs; its time for all pairs is extrapolated from that. All
pairs take most of an hour on two cores; --captions and --videos scale it down.
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

import harness
import torch
from harness import MIB
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from pair_scoring import score_by_brute_force
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

#: Of a runner; none of them runs.
HOOKS = ('timer', 'logger', 'param_scheduler', 'checkpoint', 'sampler_seed')


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
        self.starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        self.metainfo = dict(
            dataset='random features',
            split='test',
            protocol='multi-caption',
            num_videos=len(counts),
            num_captions=self.starts[-1],
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict:
        captions = range(self.starts[index], self.starts[index + 1])
        about = dict(
            video_id=str(index),
            video_index=index,
            caption_indices=list(captions),
        )
        return dict(
            inputs=dict(
                pixels=torch.tensor([[index]]),
                frame_mask=torch.ones(1, 1, dtype=torch.bool),
                token_ids=torch.tensor(captions)[:, None],
                caption_counts=torch.tensor([len(captions)]),
            ),
            data_samples=[RetrievalDataSample(metainfo=about)],
        )


def draw_features(
    args: argparse.Namespace, counts: list[int]
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw videos, and captions that are their mean frame and noise."""
    generator = torch.Generator().manual_seed(args.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, args.dim, generator=generator)

    scene = draw(len(counts), 1)  # what the frames share
    video = scene + draw(len(counts), args.frames)
    mean = video.mean(dim=1).repeat_interleave(torch.tensor(counts), dim=0)
    scale = args.noise * mean.norm(dim=-1, keepdim=True) / args.dim**0.5
    text = mean + scale * draw(sum(counts))
    mask = torch.ones(video.shape[:2], dtype=torch.bool)
    text, video, mask = (x.to(args.device) for x in (text, video, mask))
    return TextFeatures(text), VideoFeatures(video, mask)


def partial_metrics(evaluator: Any) -> dict[str, float]:
    """Text-to-video metrics of the captions scored before an interrupt."""
    blocks = evaluator.metrics[0].results
    if not blocks:
        return {}
    columns, scores = (
        torch.cat([block[key] for block in blocks])
        for key in ('column', 'scores')
    )
    summary = summarize_ranks(text_to_video_ranks(scores, columns).ranks)
    summary['shortlist_recall'] = shortlist_recall(scores, columns)[0]
    return {f't2v/{key}': value for key, value in summary.items()}


def run_stage(
    name: str,
    model: GivenFeatures,
    counts: list[int],
    shortlist: int,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluate once."""
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner(
            model=model,
            work_dir=work_dir,
            test_dataloader=DataLoader(
                NumberedVideos(counts), batch_size=None
            ),
            test_cfg=dict(type='RetrievalTestLoop', shortlist=shortlist),
            test_evaluator=dict(type='RetrievalRankMetric'),
            default_scope='eaglenet_mm',
            default_hooks=dict.fromkeys(HOOKS),
            experiment_name=f'multi_caption_{shortlist}',
            log_level=logging.WARNING,
        )
        loop: Any = runner.build_test_loop(runner._test_loop)
        model.to(device)  # the runner has taken a GPU if there is one
        metrics: dict[str, float] = {}
        captions, took = sum(counts), 0.0

        def run() -> None:
            nonlocal metrics, captions, took
            begin = time.perf_counter()
            try:
                metrics = loop.run()
            except KeyboardInterrupt:
                print('\ninterrupted; what has been scored is kept')
                metrics = partial_metrics(loop.evaluator)
                blocks = loop.evaluator.metrics[0].results
                captions = sum(len(block['column']) for block in blocks)
            harness.synchronize(device)
            took = time.perf_counter() - begin

        extra, _ = harness.extra_memory(run, device)
    return {
        'stage': f'{name} of {len(counts)} videos',
        'interrupted': captions < sum(counts),
        'captions': captions,
        's': took,
        'pairs/s': captions * len(counts) / took,
        'peak extra MiB': extra / MIB,
        'scores MiB': 4 * captions * len(counts) / MIB,
        't2v R1': metrics.get('t2v/R1'),
        'v2t R1': metrics.get('v2t/R1'),
        'recall at k': metrics.get('t2v/shortlist_recall'),
        'metrics': metrics,
    }


def reference_row(
    model: GivenFeatures, args: argparse.Namespace
) -> dict[str, Any]:
    """Score a sample by brute force and compare it with the head."""
    side = max(1, round(args.sample**0.5))
    texts = model.text.embeds[:: max(1, len(model.text) // side)][:side]
    frames = model.video.frames[:side]

    def run() -> Tensor:
        return score_by_brute_force(model.head, texts, frames, len(texts))

    scores = run()  # warm-up
    took = min(
        harness.seconds(run, args.device) for _ in range(max(1, args.repeats))
    )
    ours = model.head.score_chunked(
        model.head.prepare_text(TextFeatures(texts)),
        model.head.prepare_video(model.video.index_select(slice(side))),
    )
    rate = scores.numel() / took
    return {
        'stage': f'reference (by {scores.numel()} pairs)',
        's': len(model.text) * len(model.video) / rate,
        'pairs/s': rate,
        'difference': float((ours - scores).abs().max()),
    }


def compare(rows: dict[str, dict]) -> dict[str, float]:
    """Set the stages beside each other; only finished ones can be."""
    found: dict[str, float] = {}
    exact, short = rows.get('all_pairs'), rows.get('two_stage')
    if exact:
        rate = rows['reference']['pairs/s']
        found['ratio_to_reference'] = exact['pairs/s'] / rate
    if exact and short and not short['interrupted']:
        found['t2v_R1_change'] = short['t2v R1'] - exact['t2v R1']
        found['two_stage_ratio'] = short['pairs/s'] / exact['pairs/s']
    return found


def main() -> None:
    """Measure, print and write."""
    parser = harness.make_parser(__doc__, 'device', 'head', frames=12)
    stages = ['all_pairs', 'two_stage']
    harness.add_options(
        parser,
        videos=(670, 'videos'),
        captions=(27763, 'captions of all videos'),
        stages=(stages, 'what to run', stages),
        shortlist=(100, 'videos a caption keeps in two stages'),
        noise=(
            7.0,
            'noise of a caption over the mean frame of its video: the more, '
            'the lower R1',
        ),
        sample=(256, 'pairs that the reference scores'),
    )
    args = parser.parse_args()
    if args.captions < args.videos:
        parser.error(
            f'--captions {args.captions} are fewer than --videos '
            f'{args.videos}, but every video needs one.'
        )
    bench = harness.Bench(args)
    head = harness.build_head(args, args.frames).eval()
    # every video has equally many captions, the first ones one more
    counts = [
        args.captions // args.videos + (index < args.captions % args.videos)
        for index in range(args.videos)
    ]
    model = GivenFeatures(head, *draw_features(args, counts)).to(bench.device)
    rows = {'reference': reference_row(model, args)}
    bench.add(rows['reference'])
    for name in sorted(set(args.stages)):
        shortlist = args.shortlist if name == 'two_stage' else 0
        print(f'{name}:', flush=True)
        rows[name] = run_stage(name, model, counts, shortlist, bench.device)
        # on the disk before the next stage starts
        bench.add(rows[name], comparison=compare(rows))
        if rows[name]['interrupted']:
            break
    bench.print_table(
        f'{args.videos} videos, {args.captions} captions, D={args.dim}, '
        f'F={args.frames}, S={args.candidates}'
    )
    for key, value in compare(rows).items():
        print(f'{key}: {value:.4g}')
    if any(row.get('interrupted') for row in bench.rows):
        raise SystemExit(130)


if __name__ == '__main__':
    main()
