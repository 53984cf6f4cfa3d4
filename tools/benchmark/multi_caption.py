"""Evaluation of a multi-caption set of the size of MSVD, random features.

    python tools/benchmark/multi_caption.py --json multi_caption.json

Runs the evaluation loop on given features of 670 videos and 27 763 captions:
all pairs, then two stages with a shortlist. The brute-force reference scores a
sample of pairs; its time for all pairs is extrapolated. All pairs take most of
an hour on two cores; --captions and --videos make it smaller. The JSON file is
written after every stage, and on Ctrl-C, which keeps the rate and the
text-to-video metrics of the captions scored so far.
"""

from __future__ import annotations

import argparse
import itertools
import time
from types import SimpleNamespace
from typing import Any

import harness
import torch
from harness import MIB
from mmengine.evaluator import Evaluator
from mmengine.model import BaseDataPreprocessor
from pair_scoring import score_by_brute_force
from torch import Tensor
from torch.utils.data import DataLoader

from eaglenet_mm.engine.loops import RetrievalTestLoop
from eaglenet_mm.evaluation import RetrievalRankMetric
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

#: Length of the noise of a caption over that of the mean frame of its video,
#: so that R1 is neither 0 nor 100.
NOISE = 7.0


class Videos(list):
    """Batches of a video each, with numbers for its pixels and captions."""

    def __init__(self, counts: list[int]) -> None:
        starts = [0, *itertools.accumulate(counts)]
        for index, (start, end) in enumerate(itertools.pairwise(starts)):
            captions = list(range(start, end))
            about = dict(
                video_id=str(index),
                video_index=index,
                caption_indices=captions,
            )
            inputs = dict(
                pixels=torch.tensor([[index]]),
                frame_mask=torch.ones(1, 1, dtype=torch.bool),
                token_ids=torch.tensor(captions)[:, None],
                caption_counts=torch.tensor([len(captions)]),
            )
            sample = RetrievalDataSample(metainfo=about)
            self.append(dict(inputs=inputs, data_samples=[sample]))
        self.metainfo = dict(
            dataset='random features',
            split='test',
            protocol='multi-caption',
            num_videos=len(counts),
            num_captions=starts[-1],
        )


def make_model(
    head: BasePairHead, text: TextFeatures, video: VideoFeatures
) -> SimpleNamespace:
    """Make what looks features up where a retriever would encode."""
    to_device = BaseDataPreprocessor().to(text.embeds.device)
    return SimpleNamespace(
        head=head,
        text=text,
        video=video,
        eval=head.eval,
        data_preprocessor=to_device,
        encode_text=lambda ids: text.index_select(ids[:, 0]),
        encode_video=lambda pixels, _: video.index_select(pixels[:, 0]),
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
    scale = NOISE * mean.norm(dim=-1, keepdim=True) / args.dim**0.5
    text = mean + scale * draw(sum(counts))
    mask = torch.ones(video.shape[:2], dtype=torch.bool)
    text, video, mask = (x.to(args.device) for x in (text, video, mask))
    return TextFeatures(text), VideoFeatures(video, mask)


def partial_metrics(blocks: list[dict[str, Tensor]]) -> dict[str, float]:
    """Text-to-video metrics of the captions scored before an interrupt."""
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
    model: SimpleNamespace,
    counts: list[int],
    shortlist: int,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluate once."""
    runner: Any = SimpleNamespace(
        model=model,
        visualizer=SimpleNamespace(),
        call_hook=lambda *_, **__: None,
    )
    videos = DataLoader(Videos(counts), batch_size=None)
    metric = RetrievalRankMetric()
    loop = RetrievalTestLoop(
        runner, videos, Evaluator(metric), shortlist=shortlist
    )
    metrics: dict[str, float] = {}
    captions, took = sum(counts), 0.0

    def run() -> None:
        nonlocal metrics, captions, took
        begin = time.perf_counter()
        try:
            metrics = loop.run()
        except KeyboardInterrupt:
            print('\ninterrupted; the captions scored so far are kept')
            metrics = partial_metrics(metric.results)
            captions = sum(len(block['column']) for block in metric.results)
        harness.synchronize(device)
        took = time.perf_counter() - begin

    extra = harness.extra_memory(run, device)
    row = {
        'stage': name,
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
    is_whole = captions == sum(counts)
    return row if is_whole else {**row, 'interrupted': True}


def measure_reference(
    model: SimpleNamespace, args: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """Score a sample by brute force; give its row and our difference."""
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
    row = {
        'stage': f'reference, by {scores.numel()} pairs',
        's': len(model.text) * len(model.video) / rate,
        'pairs/s': rate,
    }
    return row, float((ours - scores).abs().max())


def main() -> None:
    """Measure, print and write."""
    stages = ['all_pairs', 'two_stage']
    bench = harness.start(
        __doc__,
        'device',
        'head',
        frames=12,
        videos=(670, 'videos'),
        captions=(27763, 'captions of all videos'),
        stages=(stages, 'what to run', stages),
        shortlist=(100, 'videos a caption keeps in two stages'),
        sample=(256, 'pairs that the reference scores'),
    )
    args = bench.args
    if args.captions < args.videos:
        bench.refuse(
            f'--captions {args.captions} are fewer than --videos '
            f'{args.videos}, but every video needs one.'
        )
    head = harness.build_head(args, args.frames).eval()
    # every video has equally many captions, the first ones one more
    counts = [
        args.captions // args.videos + (index < args.captions % args.videos)
        for index in range(args.videos)
    ]
    model = make_model(head, *draw_features(args, counts))
    row, difference = measure_reference(model, args)
    bench.add(row, difference=difference)
    for name in sorted(set(args.stages)):
        print(f'{name}:', flush=True)
        shortlist = 0
        if name == 'two_stage':
            shortlist, name = args.shortlist, f'{name}, {args.shortlist}'
        # on the disk before the next stage starts
        bench.add(run_stage(name, model, counts, shortlist, bench.device))
        if 'interrupted' in bench.rows[-1]:
            break
    bench.print_table(
        f'{args.videos} videos, {args.captions} captions, D={args.dim}, '
        f'F={args.frames}, S={args.candidates}'
    )
    print(f'\nLargest difference from the reference: {difference:.1e}.')
    if 'interrupted' in bench.rows[-1]:
        raise SystemExit(130)


if __name__ == '__main__':
    main()
