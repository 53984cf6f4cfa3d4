"""How well the moments that captions tell are found."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.datasets.windows import check_windows
from eaglenet_mm.evaluation.functional import (
    RankedWindows,
    didemo_consensus,
    rank_windows,
    share_in_moments,
    summarize_didemo,
    summarize_windows,
    temporal_iou,
    times_in_moments,
)
from eaglenet_mm.evaluation.functional.moments import (
    DIDEMO_CHUNK,
    IOU_THRESHOLDS,
    MOMENT_RECALL_AT,
)
from eaglenet_mm.registry import METRICS

#: Chunks of a video of DiDeMo.
_DIDEMO_CHUNKS = 6
_KEY = re.compile(r'(?P<own>.+?)(?P<noise>_mean|_std)?')


@METRICS.register_module()
class MomentMetric(BaseMetric):
    """Moments found in windows of the videos, by the model's own scores.

    The test loop reads every video a second time, in windows, each of which is
    encoded as a clip of its own and scored with the captions that have moments
    in the annotation (``moments``). That is what a search in an index of the
    same ``segment`` and ``overlap`` does.

    Keys, in percent, over the captions with moments and the windows of the
    right video: ``moments/R1_IoU0.5`` ..., whether a window of that IoU or
    more with the moment is among the first k; ``moments/mIoU``, mean IoU of
    the first window; ``moments/best_time``, whether the frame nearest to the
    caption in that window lies in the moment. ``..._chance`` says what windows
    in random order, and a random second, would reach, and
    ``moments/IoU0.5_ceiling`` how many captions have a right window at all.
    ``moments/captions`` is their number. Several moments of a caption are
    alternatives. Ties count against the model.

    Args:
        segment (float | Sequence[float], optional): Seconds of a window, or
            several lengths; longer than a video, it is one window. Default:
            None, which only ``didemo`` allows.
        overlap (float): Share of a window that the next one repeats, in
            [0, 1). Of several lengths, all begin where the shortest do.
            Default: 0.
        corpus (bool): Also rank the windows of all videos for each caption,
            as ``moments/corpus_R1_IoU0.5`` and so on: right is a window of
            the right video that overlaps the moment. Default: False.
        didemo (bool): Also report ``moments/didemo_rank1``,
            ``moments/didemo_rank5`` and ``moments/didemo_mIoU`` by
            :func:`~eaglenet_mm.evaluation.functional.didemo_consensus`, over
            the moments of one to six chunks of 5 seconds, which are the
            windows. Default: False.
        iou_thresholds (Sequence[float]): IoU from which on a window is right.
            Default: ``(0.5, 0.7)``.
        recall_at (Sequence[int]): The k of ``R@k``. Default: ``(1, 5)``.
        collect_device (str): See :class:`RetrievalRankMetric`. Default:
            ``'gpu'``.
        **kwargs (Any): ``prefix`` and ``collect_dir`` of
            :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If an option is out of range, or there is no ``segment``.

    Example:
        >>> metric = MomentMetric(segment=2.0, overlap=0.5)
        >>> metric.better_when('moments/R1_IoU0.7')
        'greater'
    """

    default_prefix: str | None = 'moments'

    def __init__(
        self,
        *,
        segment: float | Sequence[float] | None = None,
        overlap: float = 0.0,
        corpus: bool = False,
        didemo: bool = False,
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
        recall_at: Sequence[int] = MOMENT_RECALL_AT,
        collect_device: str = 'gpu',
        **kwargs: Any,
    ) -> None:
        super().__init__(collect_device=collect_device, **kwargs)
        chunks = [DIDEMO_CHUNK * n for n in range(1, _DIDEMO_CHUNKS + 1)]
        if segment is None:
            segment = chunks if didemo else ()
        lengths = [segment] if isinstance(segment, int | float) else segment
        self.lengths = [float(x) for x in lengths]
        self.overlap = overlap
        self.corpus = corpus
        self.didemo = didemo
        self.iou_thresholds = tuple(iou_thresholds)
        self.recall_at = tuple(recall_at)
        check_windows(self.lengths, overlap)
        if didemo and (self.lengths, overlap) != (chunks, 0):
            raise ValueError(
                "'didemo' ranks the moments of one to six chunks of "
                f'{DIDEMO_CHUNK:g} seconds, but segment={segment} and '
                f'overlap={overlap} make other windows. Leave both out.'
            )
        if not all(0 < x <= 1 for x in self.iou_thresholds) or not all(
            k >= 1 for k in self.recall_at
        ):
            raise ValueError(
                "'iou_thresholds' are above 0 and at most 1, and 'recall_at' "
                f'at least 1, but got {self.iou_thresholds} and '
                f'{self.recall_at}.'
            )
        self._windows: Mapping[str, Tensor] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure the rows of captions with moments.

        Args:
            data_batch (dict): Facts on the whole evaluation: ``windows``, of
                which ``columns``, the column of each window's video, shape
                ``(W,)``, and ``spans``, its first second and end, shape
                ``(W, 2)``.
            data_samples (Sequence[dict]): Rows: ``caption_index`` (int), and
                for those with moments ``moments`` (list of pairs of seconds),
                ``moment_column`` (int), the column of their video,
                ``window_scores``, of the windows of that video in their
                order, or of all windows with ``corpus``, and ``best_times``,
                the second of the nearest frame of each window of that video.
                The last two are missing where a video was not read.

        Raises:
            KeyError: If the loop announced no windows.
        """
        if isinstance(data_batch, Mapping):
            self._windows = data_batch.get('windows', self._windows)
        for row in data_samples:
            if 'moments' in row:
                self.results.append(self._measure(row))

    def evaluate(self, size: int) -> dict:
        """Compute the metrics; ``size`` is ignored: captions are unique."""
        return super().evaluate(sys.maxsize)

    def _measure(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Measure one caption."""
        found: dict[str, Any] = {'caption': int(row['caption_index'])}
        if 'window_scores' not in row:
            return found
        if self._windows is None:
            raise KeyError(
                "MomentMetric needs 'windows' of the evaluation. Use "
                'RetrievalValLoop and RetrievalTestLoop, which read them.'
            )
        own = self._windows['columns'] == row['moment_column']  # (W,)
        spans = self._windows['spans'][own]
        scores = all_scores = torch.as_tensor(row['window_scores'])
        if self.corpus:
            scores = all_scores[own]
        moments = torch.tensor(row['moments'], dtype=torch.float64)
        overlaps = temporal_iou(spans, moments).amax(dim=1)
        found['own'] = rank_windows(scores, overlaps, self.iou_thresholds)
        if self.corpus:
            everywhere = torch.zeros(len(own), dtype=torch.float64)
            everywhere[own] = overlaps
            found['corpus'] = rank_windows(
                all_scores, everywhere, self.iou_thresholds
            )
        # of windows that tie for the first place, all must be right
        firsts = torch.as_tensor(row['best_times'])[scores == scores.max()]
        found['time'] = bool(times_in_moments(firsts, moments).all())
        found['time_chance'] = share_in_moments(
            float(spans[:, 0].min()), float(spans[:, 1].max()), moments
        )
        if self.didemo:
            chunks, times = _chunks(spans), _chunks(moments)
            # seconds behind the part that was annotated are no candidates
            kept = chunks[:, 1] < _DIDEMO_CHUNKS
            found['didemo'] = didemo_consensus(
                scores[kept], chunks[kept], times
            )
        return found

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Summarise the captions of all processes."""
        unique = {result['caption']: result for result in results}
        read = [x for _, x in sorted(unique.items()) if 'own' in x]
        if not read:
            raise ValueError(
                'MomentMetric measures found moments, but no caption of this '
                "evaluation has any: records need 'moments' (see "
                'docs/own_data.md), and ParagraphDataset drops them. Add '
                'them, or leave '
                'MomentMetric (--moments) out.'
            )
        thresholds, at = self.iou_thresholds, self.recall_at
        # MMEngine makes plain tuples of them
        own = [RankedWindows(*x['own']) for x in read]
        metrics = summarize_windows(own, thresholds, at)
        count = len(read)
        metrics['best_time'] = 100 * sum(x['time'] for x in read) / count
        chance = sum(x['time_chance'] for x in read)
        metrics['best_time_chance'] = 100 * chance / count
        if self.corpus:
            everywhere = [RankedWindows(*x['corpus']) for x in read]
            found = summarize_windows(everywhere, thresholds, at)
            metrics.update({f'corpus_{k}': v for k, v in found.items()})
        if self.didemo:
            found = summarize_didemo([x['didemo'] for x in read])
            metrics.update({f'didemo_{k}': v for k, v in found.items()})
        metrics['captions'] = float(count)
        lost = len(unique) - count
        if lost:
            metrics['captions_lost'] = float(lost)
        self._log(metrics, sum(x.num_windows for x in own) / count)
        return metrics

    def _log(self, metrics: Mapping[str, float], mean_windows: float) -> None:
        """Log the protocol and the measures, beside chance."""
        count, lost = metrics['captions'], metrics.get('captions_lost', 0)
        lengths = ', '.join(f'{x:g}' for x in self.lengths)
        print_log(
            f'Moments: {count:.0f} captions'
            + (f' ({lost:.0f} more of videos NOT read)' if lost else '')
            + f'; windows of {lengths} s, overlap {self.overlap:g}, on '
            f'average {mean_windows:.1f} in the right video; several moments '
            'of a caption are alternatives; ties count against',
            logger='current',
            level=logging.WARNING if lost else logging.INFO,
        )
        values = '  '.join(
            f'{key} {value:.2f}'
            + (
                f' (chance {metrics[f"{key}_chance"]:.2f})'
                if f'{key}_chance' in metrics
                else ''
            )
            for key, value in metrics.items()
            if not key.endswith(('_chance', 'captions', 'captions_lost'))
        )
        print_log(f'moments  {values}', logger='current')

    def better_when(self, key: str) -> str | None:
        """Tell whether a metric is better when higher, for checkpoint hooks.

        Args:
            key (str): Key of the metrics returned by the loop.

        Returns:
            str or None: ``'greater'``, or ``'less'`` for a spread; None for a
            key that this metric does not report with its options, or that says
            nothing of the model.
        """
        match = _KEY.fullmatch(key)
        if match is None or match['own'] not in self.known_keys():
            return None
        return 'less' if match['noise'] == '_std' else 'greater'

    def known_keys(self) -> list[str]:
        """List the keys that :meth:`better_when` knows, for messages.

        Returns:
            list[str]: Keys reported in every evaluation with these options.
        """
        names = [
            *(
                f'R{k}_IoU{threshold:g}'
                for threshold in self.iou_thresholds
                for k in self.recall_at
            ),
            'mIoU',
        ]
        if self.corpus:
            names += [f'corpus_{name}' for name in names]
        if self.didemo:
            names += [f'didemo_{x}' for x in ('rank1', 'rank5', 'mIoU')]
        prefix = f'{self.prefix}/' if self.prefix else ''
        return [f'{prefix}{name}' for name in [*names, 'best_time']]


def _chunks(spans: Tensor) -> Tensor:
    """First and last chunk of DiDeMo of each span, int64, ``(n, 2)``."""
    edges = (spans / DIDEMO_CHUNK).round().long()
    return torch.stack([edges[:, 0], edges[:, 1] - 1], dim=1)
