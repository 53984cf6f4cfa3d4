"""Retrieval metrics of a complete evaluation, with its protocol stated."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.registry import METRICS

from ..functional import (
    RankResult,
    RightPairs,
    bootstrap_recall,
    on_shortlist,
    shortlist_recall,
    summarize_positions,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)
from ..functional.ranking import RECALL_AT
from .metric_keys import better_when, options_of
from .post_processing import PostProcessing
from .score_rows import assemble_rows, pack_rows

_ANNOUNCED = {
    'num_captions',
    'num_videos',
    'num_frames',
    'shortlist',
    'first_stage',
    'num_repeated',
    'parts',
}


@METRICS.register_module()
class RetrievalRankMetric(BaseMetric):
    """Text-to-video and video-to-text ranks of one evaluation.

    Takes one row of scores for each caption, in any order and from any number
    of processes; rows are put in order by ``caption_index`` and duplicates are
    dropped by it, so the result depends on neither. Ties count against the
    right answer and are reported. Differs from the release, and from
    mmaction2's ``RetrievalMetric``, which count every tie as one more query.

    Keys: ``t2v/R1 t2v/R5 t2v/R10 t2v/R50`` (percent), ``t2v/MdR t2v/MnR``
    (ranks from 1), ``t2v/ties`` (queries whose right answer shares its score),
    the same with ``v2t/``, and ``Rsum``, the sum of R1, R5 and R10 of both
    directions. On multi-caption sets text-to-video ranks every caption, and
    video-to-text scores a video against another video's captions by their
    maximum.

    A set of which videos are missing adds ``videos_found``,
    ``videos_expected``, ``texts_found`` and ``texts_expected``; the line of
    the protocol always says ``found n of m``. Expected are the published
    counts, where the header of the annotation file has them.

    Where a caption has several right videos or none, every right one counts:
    recalls and ranks are of the first right answer, which other right ones do
    not push back, and ``mAP5 nDCG5`` and so on (for 5, 10 and 50, percent, see
    :func:`~eaglenet_mm.evaluation.functional.summarize_positions`) come
    beside them. Texts without a right video are no queries of text-to-video,
    but candidates of video-to-text; videos without a caption likewise. They
    are counted in the line of the protocol and as ``t2v/unanswerable`` and
    ``v2t/unanswerable``, where there are any.

    The parts of a joined set are measured one by one as well, as
    ``parts/<name>/t2v/R1`` and so on: captions of a part among its videos.

    Two-stage scores are ranked as they are: shortlisted pairs by the head,
    all others behind them by the first stage, see
    :func:`~eaglenet_mm.evaluation.functional.off_shortlist_scores`. Further
    keys are then ``t2v/shortlist_recall``, the percent of captions whose
    video is on their shortlist, and ``v2t/shortlist_recall``, the percent of
    videos with captions that are on the shortlist of at least one of these.
    Post-processing rescores the shortlisted pairs only.

    Args:
        post_process (dict or list[dict], optional): Post-processing whose
            results are reported beside the raw ones, as ``t2v_dsl/R1`` and so
            on: ``dict(type='dsl', temperature=100.)`` or
            ``dict(type='querybank', beta=20., dynamic=True,
            bank_file=None)``. See :class:`PostProcessing`.
        bootstrap (dict, optional): Report a bootstrap interval of R1 as
            ``t2v/R1_low`` and ``t2v/R1_high``; keys ``num_samples``
            (default 2000), ``level`` (0.95) and ``seed`` (0). Captions of one
            video are resampled together.
        collect_device (str): ``'gpu'`` collects rows through the process
            group, whatever its backend; ``'cpu'`` through files, for which
            all nodes must share a folder. Defaults to ``'gpu'``, which works
            on CPUs as well.
        **kwargs (Any): ``prefix`` and ``collect_dir`` of
            :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If an option is unknown.
    """

    # '' rather than None: the keys are complete, nothing is missing to warn of
    default_prefix: str | None = ''

    def __init__(
        self,
        *,
        post_process: dict | Sequence[dict] | None = None,
        bootstrap: dict | None = None,
        collect_device: str = 'gpu',
        **kwargs: Any,
    ) -> None:
        super().__init__(collect_device=collect_device, **kwargs)
        if post_process is None:
            post_process = []
        elif isinstance(post_process, Mapping):
            post_process = [dict(post_process)]
        self.post_processing = [PostProcessing(**cfg) for cfg in post_process]
        names = [item.name for item in self.post_processing]
        if len(set(names)) != len(names):
            raise ValueError(
                'Each kind of post-processing can be asked for once, but '
                f"'post_process' holds {names}."
            )
        unknown = set(bootstrap or {}) - {'num_samples', 'level', 'seed'}
        if unknown:
            raise ValueError(
                "'bootstrap' knows num_samples, level and seed, but got "
                f'{sorted(unknown)}.'
            )
        self.bootstrap = None if bootstrap is None else dict(bootstrap)
        self._announced: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep rows of the score matrix.

        Args:
            data_batch (dict, optional): What the loop says of the complete
                evaluation: ``num_captions``, ``num_videos``,
                ``num_frames``, of a two-stage one ``shortlist`` (int)
                and ``first_stage`` (str), and of a joined one ``parts``, for
                each a dict of ``name``, ``metainfo``, ``rows`` (first, and
                one past the last) and ``columns``, and ``num_repeated``, how
                many videos stand in more than one part.
            data_samples (Sequence[dict]): Rows: ``caption_index`` (int),
                ``video_index`` (int) of its video, ``scores`` against all
                videos in canonical order, shape ``(Bv,)``, and optionally
                ``column`` (int), the place of its video among these, where
                that is not ``video_index``, and ``positives`` (list[int]),
                the places of all right videos, where that is not the one;
                without a right video ``video_index`` and ``column`` are -1.

        Raises:
            KeyError: If a row lacks a key.
        """
        if isinstance(data_batch, Mapping):
            self._announced.update(
                {key: data_batch[key] for key in _ANNOUNCED & set(data_batch)}
            )
        self.results.extend(pack_rows(data_samples))

    def evaluate(self, size: int) -> dict:
        """Collect the rows of all processes and compute the metrics.

        Args:
            size (int): Ignored: rows are unique by id, so none is padding
                that would have to be cut off.

        Returns:
            dict[str, float]: The metrics, the same on every process.
        """
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute all metrics from the rows of all processes.

        Args:
            results (list[dict]): Blocks of rows, in any order.

        Returns:
            dict[str, float]: Metrics by key; see the class.

        Raises:
            ValueError: If rows are missing, differ in length, or hold a
                non-finite score.
        """
        announced, self._announced = self._announced, {}
        scores, right = assemble_rows(results, announced)
        parts = announced.pop('parts', ())
        metrics = self._measure(scores, right, announced)
        for part in parts:
            columns = torch.as_tensor(part['columns'], dtype=torch.long)
            rows = slice(*part['rows'])
            pairs = _as_pairs(right).select(rows, columns)
            found = self._measure(
                scores[rows][:, columns],
                pairs.simplify(),
                {**announced, 'num_repeated': 0},
                part=part,
                columns=columns,
            )
            prefix = f'parts/{part["name"]}'
            metrics.update({f'{prefix}/{k}': v for k, v in found.items()})
        return metrics

    def _measure(
        self,
        scores: Tensor,
        right: Tensor | RightPairs,
        announced: Mapping[str, Any],
        part: Mapping[str, Any] | None = None,
        columns: Tensor | None = None,
    ) -> dict[str, float]:
        """Compute all metrics of a matrix: the whole, or a part of it."""
        name = f' of {part["name"]}' if part else ''
        meta = (part['metainfo'] if part else self.dataset_meta) or {}
        counts = _Counts(scores, right, meta, announced.get('num_repeated', 0))
        if not counts.answerable['t2v']:
            if not part:
                raise ValueError(
                    f'None of the {scores.shape[0]} texts has a right video '
                    f'among the {scores.shape[1]} of the gallery, so there is '
                    "no query. Look at 'captions', 'positives' and 'queries' "
                    'of the annotation file.'
                )
            self._log_protocol(counts, meta, announced, name)
            return counts.incomplete()
        blocks: dict[str, tuple[Tensor, Tensor | None]] = {
            '': (scores, scores)
        }
        for item in self.post_processing:
            blocks[f'_{item.name}'] = item(scores, columns)
        metrics: dict[str, float] = {}
        recalls: dict[str, float] = {}
        scored = on_shortlist(scores)
        if 'shortlist' in announced or not bool(scored.all()):
            announced = {'shortlist': int(scored[0].sum()), **announced}
            recalls['t2v'], recalls['v2t'] = shortlist_recall(scores, right)
        self._log_protocol(counts, meta, announced, name)
        for suffix, (for_texts, for_videos) in blocks.items():
            block: dict[str, float] = {}
            total = 0.0
            directions = {'t2v': text_to_video_ranks(for_texts, right)}
            if for_videos is not None:
                directions['v2t'] = video_to_text_ranks(for_videos, right)
            for direction, result in directions.items():
                summary = summarize_ranks(result.ranks)
                total += summary['R1'] + summary['R5'] + summary['R10']
                if result.positions is not None:
                    summary.update(summarize_positions(result))
                summary['ties'] = float(result.num_tied_queries)
                if self.bootstrap is not None:
                    groups = _groups(right) if direction == 't2v' else None
                    summary.update(self._interval(result, groups))
                if not suffix and recalls:
                    summary['shortlist_recall'] = recalls[direction]
                if not suffix and counts.unanswerable(direction):
                    summary['unanswerable'] = counts.unanswerable(direction)
                for key, value in summary.items():
                    block[f'{direction}{suffix}/{key}'] = value
                self._log_row(f'{direction}{suffix}{name}', summary)
            if len(directions) == 2:
                block[f'Rsum{suffix}'] = total
            metrics.update(block)
        metrics.update(counts.incomplete())
        return metrics

    def better_when(self, key: str) -> str | None:
        """Tell which way is up, for hooks that keep the best checkpoint.

        Args:
            key (str): A key of the metrics that the loop returns.

        Returns:
            str or None: ``'greater'`` or ``'less'``; None for a key that
            this metric, with its options, does not report.
        """
        if self.prefix:
            if not key.startswith(f'{self.prefix}/'):
                return None
            key = key[len(self.prefix) + 1 :]
        own = {item.name for item in self.post_processing}
        if self.bootstrap is not None:
            own.add('bootstrap')
        wanted = options_of(key)
        of_the_loop = {'noise_seeds', 'shortlist'}
        if wanted - own - of_the_loop:
            return None
        if wanted & self._one_way() and 't2v_' not in key:
            return None
        return better_when(key)

    def known_keys(self) -> list[str]:
        """Name the keys that :meth:`better_when` knows, for messages.

        Returns:
            list[str]: Those of every evaluation with these options. Sets of
            several parts and loops with noise seeds add to their beginning
            (``parts/<name>/``) and end (``_mean``, ``_std``).
        """
        names = [f'R{k}' for k in RECALL_AT] + ['MdR', 'MnR', 'ties']
        if self.bootstrap is not None:
            names += ['R1_low', 'R1_high']
        keys = []
        for kind in ['', *(item.name for item in self.post_processing)]:
            suffix = f'_{kind}' if kind else ''
            both = kind not in self._one_way()
            keys += [
                f'{direction}{suffix}/{name}'
                for direction in (('t2v', 'v2t') if both else ('t2v',))
                for name in names
            ]
            if both:
                keys.append(f'Rsum{suffix}')
        return [f'{self.prefix}/{key}' if self.prefix else key for key in keys]

    def _one_way(self) -> set[str]:
        """Post-processing whose bank serves text-to-video only."""
        return {
            item.name
            for item in self.post_processing
            if item.options.get('bank_file') is not None
        }

    def _interval(
        self, result: RankResult, groups: Tensor | None
    ) -> dict[str, float]:
        """Bootstrap interval of R1 under the keys of this metric."""
        options = self.bootstrap or {}
        low, high = bootstrap_recall(result.ranks, groups, **options)
        return {'R1_low': low, 'R1_high': high}

    def _log_protocol(
        self,
        counts: _Counts,
        meta: Mapping[str, Any],
        announced: Mapping[str, Any],
        name: str,
    ) -> None:
        """State what was evaluated, and warn when something is missing."""
        applied = ', '.join(str(item) for item in self.post_processing)
        stages = ''
        if 'shortlist' in announced:
            stages = (
                f'two-stage, shortlist {announced["shortlist"]} by '
                f'{announced.get("first_stage", "an unknown first stage")}'
                f'{", made among all videos" if name else ""}; '
            )
        lost = bool(counts.incomplete())
        print_log(
            f'Protocol{name}: dataset {meta.get("dataset", "unknown")}, split '
            f'{meta.get("split", "unknown")}, protocol '
            f'{meta.get("protocol", "unknown")}; {counts}; frames '
            f'{announced.get("num_frames", "unknown")}; {stages}ties count '
            'against; '
            f'post-processing {applied or "none"}'
            + ('; NOT the complete set' if lost else ''),
            logger='current',
            level=logging.WARNING if lost else logging.INFO,
        )

    @staticmethod
    def _log_row(name: str, summary: Mapping[str, float]) -> None:
        whole = ('ties', 'unanswerable')
        values = '  '.join(
            f'{key} {int(value) if key in whole else format(value, ".2f")}'
            for key, value in summary.items()
        )
        print_log(f'{name:<14} {values}', logger='current')


class _Counts:
    """What an evaluation found, what it expected, and what it asks."""

    def __init__(
        self,
        scores: Tensor,
        right: Tensor | RightPairs,
        meta: Mapping[str, Any],
        num_repeated: int,
    ) -> None:
        self.found = {
            'texts': scores.shape[0],
            'videos': scores.shape[1] + num_repeated,
        }
        self.num_repeated = num_repeated
        # published counts of the set, or else those of its file
        self.expected: dict[str, int | None] = {
            name: meta.get(f'published_{key}', meta.get(f'num_{key}'))
            for name, key in (('texts', 'captions'), ('videos', 'videos'))
        }
        self.candidates = dict(zip(('t2v', 'v2t'), scores.shape, strict=True))
        pairs = _as_pairs(right)
        self.answerable = {
            't2v': len(pairs.texts.unique()),
            'v2t': len(pairs.videos.unique()),
        }
        self.several = isinstance(right, RightPairs)
        self.num_pairs = len(pairs.texts)

    def unanswerable(self, direction: str) -> float:
        """Count texts, or videos, without a right answer."""
        return float(self.candidates[direction] - self.answerable[direction])

    def incomplete(self) -> dict[str, float]:
        """Counts that stand in the result line of a set with losses."""
        counts: dict[str, float] = {}
        for name, expected in self.expected.items():
            if expected not in (None, self.found[name]):
                counts[f'{name}_found'] = self.found[name]
                counts[f'{name}_expected'] = expected
        return counts

    def __str__(self) -> str:
        said = [
            f'{name}: found {self.found[name]} of '
            f'{"unknown" if expected is None else expected}'
            for name, expected in self.expected.items()
        ]
        if self.num_repeated:
            said.append(
                f'{self.num_repeated} videos stand in several parts and are '
                'one candidate each'
            )
        if self.several:
            said.append(f'{self.num_pairs} right pairs, any right one counts')
        for direction, text in (
            ('t2v', 'texts without a right video are no queries'),
            ('v2t', 'videos without a text are no queries'),
        ):
            if self.unanswerable(direction):
                said.append(f'{self.unanswerable(direction):.0f} {text}')
        return ', '.join(said)


def _as_pairs(right: Tensor | RightPairs) -> RightPairs:
    """Write the one vector as right pairs."""
    if isinstance(right, RightPairs):
        return right
    return RightPairs(right, torch.arange(len(right)), right)


def _groups(right: Tensor | RightPairs) -> Tensor:
    """Group of each query, for a bootstrap: captions of one video."""
    if isinstance(right, RightPairs):
        return right.groups()[right.texts.unique()]
    return right
