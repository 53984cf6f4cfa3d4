"""The evaluation loop on given features, and what is left of a stopped one."""

from __future__ import annotations

import logging
from typing import Any

import torch
from given_features import GivenFeatures, NumberedVideos
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eaglenet_mm.evaluation.functional import (
    shortlist_recall,
    summarize_ranks,
    text_to_video_ranks,
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
