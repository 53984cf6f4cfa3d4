"""Validation and test loops that encode each side once."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from eaglenet_mm.datasets.joined_parts import joined_metainfo, mark_parts
from eaglenet_mm.engine.loops.retrieval_evaluation import (
    RetrievalEvaluation,
    check_shortlist,
)
from eaglenet_mm.evaluation import KeptScores
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.registry import LOOPS
from eaglenet_mm.structures import TextFeatures
from eaglenet_mm.utils.progress import Progress

Blocks = Iterable[tuple[range, TextFeatures]]


class _RetrievalLoop(BaseLoop):
    """The two loops."""

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        *,
        noise_seeds: int = 0,
        video_batch: int = 1,
        shortlist: int = 0,
    ) -> None:
        if noise_seeds < 0 or noise_seeds == 1:
            raise ValueError(
                "'noise_seeds' must be 0 (off) or at least 2, to have a "
                f'spread, but got {noise_seeds}.'
            )
        if video_batch < 1:
            raise ValueError(
                f"'video_batch' must be at least 1, but got {video_batch}."
            )
        if shortlist < 0:
            raise ValueError(
                "'shortlist' must be 0 (off, all pairs are scored) or a "
                f'number of videos, but got {shortlist}.'
            )
        self.noise_seeds = noise_seeds
        self.video_batch = video_batch
        self.shortlist = shortlist
        # MMEngine's loop of this stage builds the evaluator
        super().__init__(runner, dataloader, evaluator, fp16=fp16)
        self.evaluator: Evaluator
        self.fp16: bool
        # names the hooks that are called
        self.stage = 'test' if isinstance(self, TestLoop) else 'val'
        self.parts = mark_parts(self.dataloader.dataset)
        if self.parts:  # what MMEngine takes is of the first part
            self.evaluator.dataset_meta = joined_metainfo(self.parts)

    def run(self) -> dict[str, float]:
        """Evaluate the whole set: encode, gather, score, measure.

        Returns:
            dict[str, float]: The metrics, the same on every process.
        """
        call_hook, stage = self.runner.call_hook, self.stage
        call_hook(f'before_{stage}')
        call_hook(f'before_{stage}_epoch')
        self.runner.model.eval()
        model: Any = self.runner.model
        if is_model_wrapper(model):
            model = model.module
        with torch.no_grad():
            # every item is one video at most: an error before hours of work
            check_shortlist(self.shortlist, len(self.dataloader.dataset))
            evaluation = RetrievalEvaluation(
                model,
                fp16=self.fp16,
                video_batch=self.video_batch,
                shortlist=self.shortlist,
                parts=self.parts,
            )
            progress = Progress('video batches', len(self.dataloader))
            for index, batch in enumerate(self.dataloader):
                at = dict(batch_idx=index, data_batch=batch)
                call_hook(f'before_{stage}_iter', **at)
                samples = evaluation.add_batch(batch)
                call_hook(f'after_{stage}_iter', **at, outputs=samples)
                progress.update(1)
            progress.close()
            evaluation.gather()
            blocks: Blocks = evaluation.encode_texts()
            if self.noise_seeds:
                blocks = list(blocks)  # encoded once, scored several times
            metrics = _measure(evaluation, model.head, blocks, self.evaluator)
            if self.noise_seeds:
                metrics.update(self._repeat(evaluation, model.head, blocks))
            # not one of MMEngine's: only hooks that have it are called
            call_hook(
                'after_scoring',
                evaluation=evaluation,
                evaluator=self.evaluator,
                metrics=metrics,
            )
        call_hook(f'after_{stage}_epoch', metrics=metrics)
        call_hook(f'after_{stage}')
        return metrics

    def _repeat(
        self,
        evaluation: RetrievalEvaluation,
        head: BasePairHead,
        blocks: Blocks,
    ) -> dict[str, float]:
        """Measure under several seeds of the head's noise."""
        # a copy: the checkpoint's own noise must survive the evaluation
        head = copy.deepcopy(head)
        # dumps and pictures are of the checkpoint's own noise
        evaluator = Evaluator(
            [
                metric
                for metric in self.evaluator.metrics
                if not isinstance(metric, DumpResults | KeptScores)
            ]
        )
        evaluator.dataset_meta = self.evaluator.dataset_meta
        runs = []
        for seed in range(self.noise_seeds):
            head.reseed(seed)
            runs.append(_measure(evaluation, head, blocks, evaluator))
        result: dict[str, float] = {}
        for key in runs[0]:
            if key.endswith(('ties', '_low', '_high', 'unanswerable')):
                continue
            values = [run[key] for run in runs]
            mean, spread = statistics.fmean(values), statistics.stdev(values)
            result[f'{key}_mean'], result[f'{key}_std'] = mean, spread
            if key.split('/')[-1] == 'R1' or 'Rsum' in key:
                print_log(
                    f'{key} over {len(runs)} noise seeds: mean {mean:.2f}, '
                    f'standard deviation {spread:.2f}',
                    logger='current',
                )
        return result


def _measure(
    evaluation: RetrievalEvaluation,
    head: BasePairHead,
    blocks: Blocks,
    evaluator: Evaluator,
) -> dict[str, float]:
    """Score with a head, hand the rows to an evaluator, and ask it."""
    num_captions = len(evaluation.caption_indices)
    announcement = evaluation.announcement(head)
    progress = Progress('captions', num_captions)
    for rows in evaluation.score(head, blocks):
        evaluator.process(data_samples=rows, data_batch=announcement)
        progress.update(len(rows))
    progress.close()
    return evaluator.evaluate(num_captions)


@LOOPS.register_module()
class RetrievalValLoop(_RetrievalLoop, ValLoop):
    """Validate a retriever; arguments and all else as RetrievalTestLoop.

    Example:
        >>> val_cfg = dict(type='RetrievalValLoop', fp16=True)
    """


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test a retriever: encode each side once, score all pairs, rank.

    Items are videos that carry all their captions. Every process encodes the
    videos its sampler deals out; features are gathered by id, where duplicates
    of the sampler fall away; captions are encoded and scored in fixed blocks
    of the canonical order, dealt out over the processes. Hooks are called as
    MMEngine's loops call them; those that have an ``after_scoring(runner,
    evaluation, evaluator, metrics)`` get the features as well.

    Duplicates are items of the same index and id. Joined sets
    (``ConcatDataset``, also within each other and under ``RepeatDataset``)
    are one gallery, in which the indices of a part go on where the part
    before it ends; a video that stands in several parts, with one id and one
    file, is one candidate for the captions of all of them. Metrics of each
    part follow as ``parts/<name>/t2v/R1`` and so on; its name is its
    ``dataset``, with split, protocol or a number where that is needed to tell
    parts apart.

    Differs from the release, which decodes a video once for each caption and
    whose scores depend on batch size and chunk order.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader or dict): Videos that carry their captions.
        evaluator (Evaluator or dict or list): Takes score rows, see
            :class:`~eaglenet_mm.evaluation.RetrievalRankMetric`; MMEngine's
            ``DumpResults`` writes them to a file.
        fp16 (bool): Encode under autocast (bfloat16 on CPU); features are
            scored in float32. Default: False.
        noise_seeds (int): If K >= 2, evaluate K more times with
            ``head.reseed(0)`` to ``head.reseed(K - 1)`` and add
            ``t2v/R1_mean`` and ``t2v/R1_std`` (sample standard deviation) and
            so on; the plain keys keep the checkpoint's own noise. Default: 0,
            off.
        video_batch (int): Videos in one encoder call. With 1, the default, a
            video's features are bitwise the same for every batch size of the
            dataloader and every number of processes. Larger values are
            faster on a GPU; calls still all have the same shape, but which
            videos share a call then depends on batch order, and equality to
            the last bit on the kernels.
        shortlist (int): If k >= 1, evaluate in two stages: every caption
            shortlists k videos by a cheap score in float32, of equal ones the
            lower columns, and the head scores these pairs only. The cheap
            score is the inner product of the head's ``shortlist_text`` and
            ``shortlist_video``, by default the cosine of the text and the
            mean frame. All other pairs rank behind every shortlisted one of
            the whole matrix, in the order of the cheap score (see
            :func:`~eaglenet_mm.evaluation.functional.off_shortlist_scores`),
            also for video-to-text, which reads the same matrix by columns.
            The first stage's recall at k is reported as
            ``t2v/shortlist_recall`` and ``v2t/shortlist_recall``. Scores on
            the shortlist are those of all pairs up to rounding, since
            products have other shapes; to the last bit with k the number of
            videos. Default: 0, off.

    Raises:
        ValueError: If an option is out of range, features are not finite, or
            a shortlist is longer than the gallery.

    Note:
        Every process holds the features of all videos and the token ids of
        all captions; scores exist in blocks of 64 captions (two-stage: 512,
        on a GPU 2048) until they reach the evaluator.

        A process that dies or raises during an evaluation ends the others
        with an error: at once under gloo, and under NCCL when the launcher
        notices, or after the time-out of the process group
        (``env_cfg.dist_cfg.timeout``, in seconds).

    Example:
        >>> test_cfg = dict(type='RetrievalTestLoop', shortlist=50)
    """
