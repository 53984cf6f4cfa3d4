"""Metrics on the score matrix of a complete evaluation."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.evaluation.functional import (
    RightPairs,
    bootstrap_recall,
    check_finite,
    on_shortlist,
    shortlist_recall,
    summarize_positions,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.evaluation.functional.ranking import PRECISION_AT, RECALL_AT
from eaglenet_mm.evaluation.metrics.post_processing import PostProcessing
from eaglenet_mm.registry import METRICS

_ROW_KEYS = ('caption_index', 'video_index', 'scores')
_KEY = re.compile(
    r'(?:parts/.+/)?(?P<own>[tv]2[tv]\w*/\w+?|Rsum\w*?)(?P<noise>_mean|_std)?'
)
_LOWER_IS_BETTER = ('MdR', 'MnR', 'ties')
# reported with a shortlist, or with several right answers
_OCCASIONAL = (
    'shortlist_recall',
    *(f'{name}{k}' for k in PRECISION_AT for name in ('mAP', 'nDCG')),
)


class ScoreMatrixMetric(BaseMetric):
    """Base of metrics on the whole score matrix."""

    # '' rather than None, for which MMEngine warns of a missing prefix
    default_prefix: str | None = ''

    def __init__(self, collect_device: str = 'gpu', **kwargs: Any) -> None:
        super().__init__(collect_device=collect_device, **kwargs)
        self._announced: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep rows of the score matrix.

        Args:
            data_batch (dict, optional): Facts on the whole evaluation:
                ``num_captions``, ``num_videos``, ``num_frames``; if two-stage,
                ``shortlist`` (int) and ``first_stage`` (str); if
                joined, ``parts``, a dict for each with ``name``, ``metainfo``,
                ``rows`` (first, and one past the last) and ``columns``, and
                ``num_repeated``, the number of videos in more than one part.
            data_samples (Sequence[dict]): Rows: ``caption_index`` (int),
                ``video_index`` (int) of its video, ``scores`` against all
                videos in canonical order, shape ``(Bv,)``; optionally
                ``column`` (int), the column of its video if that is not
                ``video_index``, and ``positives`` (list[int]), the columns of
                all right videos if there is not exactly one. Without a right
                video, ``video_index`` and ``column`` are -1.

        Raises:
            KeyError: If a row lacks a key.
        """
        if isinstance(data_batch, Mapping):
            self._announced.update(data_batch)
        self.results.extend(pack_rows(data_samples))

    def evaluate(self, size: int) -> dict:
        """Compute the metrics from the rows of all processes.

        ``size`` is ignored: rows are unique by id, so none is padding.
        """
        return super().evaluate(sys.maxsize)

    def _assemble(
        self, results: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Tensor, Tensor | RightPairs, dict[str, Any]]:
        """Return the matrix, the right answers and the announced facts."""
        announced, self._announced = self._announced, {}
        return *assemble_rows(results, announced), announced


@METRICS.register_module()
class RetrievalRankMetric(ScoreMatrixMetric):
    """Text-to-video and video-to-text retrieval metrics.

    Takes one row of scores for each caption, in any order and from any number
    of processes. Rows are sorted and deduplicated by ``caption_index``, so the
    result depends on neither. Ties count against the right answer and are
    reported. Differs from the release, and from mmaction2's
    ``RetrievalMetric``, which count every tie as another query.

    Keys: ``t2v/R1 t2v/R5 t2v/R10 t2v/R50`` (percent), ``t2v/MdR t2v/MnR``
    (ranks from 1), ``t2v/ties`` (queries whose right answer ties with a wrong
    one), the same with ``v2t/``, and ``Rsum``, the sum of R1, R5 and R10 of
    both directions. On multi-caption sets text-to-video ranks every caption,
    and video-to-text scores a video against another video's captions by their
    maximum.

    If videos or texts of the set are missing, ``videos_found``,
    ``videos_expected``, ``texts_found`` and ``texts_expected`` are added; the
    logged protocol always says ``found n of m``. Expected are the published
    counts if the annotation file has them in its header.

    If a caption has several right videos or none, every right one counts:
    recalls and ranks are those of the first right answer, which other right
    ones do not push back, and ``mAP5 nDCG5`` and so on (for 5, 10 and 50,
    percent, see
    :func:`~eaglenet_mm.evaluation.functional.summarize_positions`) are added.
    Texts without a right video are candidates of video-to-text, but not
    queries of text-to-video; videos without a caption likewise. Their numbers,
    if any, are logged and reported as ``t2v/unanswerable`` and
    ``v2t/unanswerable``.

    Each part of a joined dataset is also measured separately, with its
    captions among its videos, as ``parts/<name>/t2v/R1`` and so on.

    In a two-stage evaluation, shortlisted pairs rank by the head's scores and
    all others behind them by the first stage, see
    :func:`~eaglenet_mm.evaluation.functional.off_shortlist_scores`. Additional
    keys are ``t2v/shortlist_recall``, the percentage of captions whose video
    is on their shortlist, and ``v2t/shortlist_recall``, the percentage of
    videos with captions that at least one of these shortlists.
    Post-processing rescores only shortlisted pairs.

    Args:
        post_process (dict or list[dict], optional): Post-processing whose
            results are reported beside the raw ones, as ``t2v_dsl/R1`` and so
            on: ``dict(type='dsl', temperature=100.)`` or
            ``dict(type='querybank', beta=20., dynamic=True,
            bank_file=None)``. The bank is a ``.npy`` file of float scores of
            bank texts (rows, usually training captions) against the evaluated
            videos (columns, canonical order); it rescores only text-to-video.
            Without one, the evaluated queries are their own bank in both
            directions.
        bootstrap (dict, optional): Report a bootstrap interval of R1 as
            ``t2v/R1_low`` and ``t2v/R1_high``; keys ``num_samples``
            (default: 2000), ``level`` (0.95) and ``seed`` (0). Captions of one
            video are resampled together.
        collect_device (str): ``'gpu'`` collects rows through the process
            group, whatever its backend; ``'cpu'`` through files, for which
            all nodes must share a folder. Default: ``'gpu'``, which also works
            on CPUs.
        **kwargs (Any): ``prefix`` and ``collect_dir`` of
            :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If an option is unknown.

    Example:
        >>> metric = RetrievalRankMetric(post_process=dict(type='dsl'))
        >>> metric.better_when('t2v_dsl/R1'), metric.better_when('v2t/MnR')
        ('greater', 'less')
    """

    def __init__(
        self,
        *,
        post_process: dict | Sequence[dict] | None = None,
        bootstrap: dict | None = None,
        collect_device: str = 'gpu',
        **kwargs: Any,
    ) -> None:
        super().__init__(collect_device, **kwargs)
        if isinstance(post_process, Mapping):
            post_process = [dict(post_process)]
        self.post_processing = [
            PostProcessing(**cfg) for cfg in post_process or ()
        ]
        names = [item.name for item in self.post_processing]
        if len(set(names)) != len(names):
            raise ValueError(
                'Each kind of post-processing can be used once, but '
                f"'post_process' holds {names}."
            )
        unknown = set(bootstrap or {}) - {'num_samples', 'level', 'seed'}
        if unknown:
            raise ValueError(
                "'bootstrap' knows num_samples, level and seed, but got "
                f'{sorted(unknown)}.'
            )
        self.bootstrap = None if bootstrap is None else dict(bootstrap)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute all metrics from the rows of all processes."""
        scores, right, announced = self._assemble(results)
        metrics = self._measure(scores, right, announced)
        pairs = _as_pairs(right)
        for part in announced.get('parts', ()):
            columns = torch.as_tensor(part['columns'], dtype=torch.long)
            rows = slice(*part['rows'])
            found = self._measure(
                scores[rows][:, columns],
                pairs.select(rows, columns).simplify(),
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
        """Compute all metrics of the matrix, or of a part of it."""
        name = f' of {part["name"]}' if part else ''
        meta = (part['metainfo'] if part else self.dataset_meta) or {}
        unanswerable, incomplete, counts = _count(
            scores, right, meta, announced.get('num_repeated', 0)
        )
        stages = ''
        recalls: dict[str, float] = {}
        answerable = unanswerable['t2v'] < len(scores)
        scored = on_shortlist(scores)
        if answerable and ('shortlist' in announced or not bool(scored.all())):
            recalls['t2v'], recalls['v2t'] = shortlist_recall(scores, right)
            stages = (
                'two-stage, shortlist '
                f'{announced.get("shortlist", int(scored[0].sum()))} by '
                f'{announced.get("first_stage", "an unknown first stage")}'
                f'{", made among all videos" if part else ""}; '
            )
        if not answerable and not part:
            raise ValueError(
                f'None of the {scores.shape[0]} texts has a right video '
                f'among the {scores.shape[1]} of the gallery, so there is '
                "no query. Check 'captions', 'positives' and 'queries' "
                'of the annotation file.'
            )
        applied = ', '.join(str(item) for item in self.post_processing)
        print_log(
            f'Protocol{name}: dataset {meta.get("dataset", "unknown")}, split '
            f'{meta.get("split", "unknown")}, protocol '
            f'{meta.get("protocol", "unknown")}; {counts}; frames '
            f'{announced.get("num_frames", "unknown")}; {stages}ties count '
            f'against; post-processing {applied or "none"}'
            + ('; NOT the complete set' if incomplete else ''),
            logger='current',
            level=logging.WARNING if incomplete else logging.INFO,
        )
        if not answerable:
            return incomplete
        blocks: dict[str, tuple[Tensor, Tensor | None]] = {
            '': (scores, scores)
        }
        for item in self.post_processing:
            blocks[f'_{item.name}'] = item(scores, columns)
        metrics: dict[str, float] = {}
        for suffix, (for_texts, for_videos) in blocks.items():
            total = 0.0
            ranked = {'t2v': text_to_video_ranks(for_texts, right)}
            if for_videos is not None:
                ranked['v2t'] = video_to_text_ranks(for_videos, right)
            for way, result in ranked.items():
                summary = summarize_ranks(result.ranks)
                total += summary['R1'] + summary['R5'] + summary['R10']
                if result.positions is not None:
                    summary.update(summarize_positions(result))
                summary['ties'] = float(result.num_tied_queries)
                if self.bootstrap is not None:
                    groups = _groups(right) if way == 't2v' else None
                    summary['R1_low'], summary['R1_high'] = bootstrap_recall(
                        result.ranks, groups, **self.bootstrap
                    )
                if not suffix and recalls:
                    summary['shortlist_recall'] = recalls[way]
                if not suffix and unanswerable[way]:
                    summary['unanswerable'] = float(unanswerable[way])
                for key, value in summary.items():
                    metrics[f'{way}{suffix}/{key}'] = value
                _log_row(f'{way}{suffix}{name}', summary)
            if len(ranked) == 2:
                metrics[f'Rsum{suffix}'] = total
        return {**metrics, **incomplete}

    def better_when(self, key: str) -> str | None:
        """Tell whether a metric is better when higher, for checkpoint hooks.

        The measure decides, whatever precedes it (part of a joined dataset,
        direction, post-processing) or follows it (bound of an interval, mean
        over noise seeds). A spread, ``_std``, is better when smaller.

        Args:
            key (str): Key of the metrics returned by the loop.

        Returns:
            str or None: ``'greater'`` or ``'less'``; None for a key that this
            metric does not report with its options, or that is a count rather
            than a measure of quality.
        """
        prefix = f'{self.prefix}/' if self.prefix else ''
        match = _KEY.fullmatch(key.removeprefix(prefix))
        if match is None or not key.startswith(prefix):
            return None
        own = match['own']
        if own not in self._keys():
            return None
        lower = own.endswith(_LOWER_IS_BETTER) or match['noise'] == '_std'
        return 'less' if lower else 'greater'

    def known_keys(self) -> list[str]:
        """List the keys that :meth:`better_when` knows, for messages.

        Returns:
            list[str]: Keys reported in every evaluation with these options.
            Joined datasets add a prefix (``parts/<name>/``), noise seeds a
            suffix (``_mean``, ``_std``).
        """
        prefix = f'{self.prefix}/' if self.prefix else ''
        return [
            f'{prefix}{key}'
            for key in self._keys()
            if not key.endswith(_OCCASIONAL)
        ]

    def _keys(self) -> list[str]:
        """All possible keys with these options."""
        names = [*(f'R{k}' for k in RECALL_AT), *_LOWER_IS_BETTER]
        if self.bootstrap is not None:
            names += ['R1_low', 'R1_high']
        keys = []
        for suffix, one_way in [
            ('', False),
            *((f'_{x.name}', x.is_one_way) for x in self.post_processing),
        ]:
            occasional = _OCCASIONAL if not suffix else _OCCASIONAL[1:]
            keys += [
                f'{way}{suffix}/{name}'
                for way in (('t2v',) if one_way else ('t2v', 'v2t'))
                for name in (*names, *occasional)
            ]
            if not one_way:
                keys.append(f'Rsum{suffix}')
        return keys


class KeptScores(ScoreMatrixMetric):
    """Metric without keys that keeps the score matrix in the main process.

    Add it to an evaluator beside :class:`RetrievalRankMetric`; it takes the
    same rows.

    Attributes:
        scores (Tensor, optional): After an evaluation, in the main process,
            shape ``(Bt, Bv)``, both in canonical order.
        right (Tensor or RightPairs, optional): Likewise the column of each
            caption's video, shape ``(Bt,)``, or the right pairs if some
            caption does not have exactly one right video.
        columns (Tensor, optional): Likewise the column of each caption's own
            video, -1 for none, shape ``(Bt,)``.

    Example:
        >>> kept = KeptScores()
        >>> kept.process({}, [dict(caption_index=0, video_index=1, scores=s)
        ...                   for s in [[0.1, 0.9]]])
        >>> kept.evaluate(1), kept.columns
        ({}, tensor([1]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores: Tensor | None = None
        self.right: Tensor | RightPairs | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Keep the matrix; return no metrics."""
        self.scores, self.right, _ = self._assemble(results)
        return {}

    def right_videos(self, rows: Sequence[int]) -> list[list[int]]:
        """List the columns of the right videos of some captions."""
        right = self.right
        if isinstance(right, RightPairs):
            return [right.videos[right.texts == row].tolist() for row in rows]
        return [[] if right is None else [int(right[row])] for row in rows]

    @property
    def columns(self) -> Tensor | None:
        """Tensor: See the class."""
        right = self.right
        return right.columns if isinstance(right, RightPairs) else right


def pack_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
    """Pack rows into blocks of a few tensors, since each is sent separately.

    A block has ``caption_index`` and ``column``, shape ``(n,)``, and
    ``scores``, shape ``(n, Bv)``; if rows have ``positives``, also these,
    concatenated, and ``num_positives``, shape ``(n,)``.
    """
    blocks = []
    for (_, several), group in groupby(
        map(_check_row, rows), key=lambda row: (row[2].shape, bool(row[3]))
    ):
        captions, columns, scores, positives = zip(*group, strict=True)
        block = {
            'caption_index': torch.tensor(captions),
            'column': torch.tensor(columns),
            'scores': torch.stack(scores),
        }
        if several:
            joined = [column for (own,) in positives for column in own]
            block['positives'] = torch.tensor(joined, dtype=torch.long)
            counts = [len(own) for (own,) in positives]
            block['num_positives'] = torch.tensor(counts)
        blocks.append(block)
    return blocks


def _check_row(
    row: Mapping[str, Any],
) -> tuple[int, int, Tensor, tuple[list[int], ...]]:
    """Return caption, column, scores ``(Bv,)``, and positives if any."""
    for key in _ROW_KEYS:
        if key not in row:
            raise KeyError(
                'RetrievalRankMetric takes rows with '
                f"{', '.join(_ROW_KEYS)}, but got one without '{key}' (it has "
                f'{sorted(row)}). Use RetrievalValLoop and RetrievalTestLoop.'
            )
    return (
        int(row['caption_index']),
        int(row.get('column', row['video_index'])),
        torch.as_tensor(row['scores']),
        # in a tuple, to tell an empty list from none
        (sorted({int(column) for column in row['positives']}),)
        if 'positives' in row
        else (),
    )


def assemble_rows(
    blocks: Sequence[Mapping[str, Tensor]], announced: Mapping[str, Any]
) -> tuple[Tensor, Tensor | RightPairs]:
    """Sort rows by caption, drop duplicates and check completeness."""
    captions = torch.cat(
        [block['caption_index'] for block in blocks] or [torch.empty(0)]
    )
    distinct, rows = captions.unique(return_inverse=True)
    num_captions = announced.get('num_captions', len(distinct))
    if len(distinct) != num_captions or not blocks:
        raise ValueError(
            f'Expected score rows of {num_captions} captions, but got '
            f'{len(distinct)}. Every process must hand its rows to the '
            'evaluator; use RetrievalValLoop and RetrievalTestLoop.'
        )
    widths = sorted({block['scores'].shape[1] for block in blocks})
    num_videos = announced.get('num_videos', widths[0])
    if widths != [num_videos]:
        raise ValueError(
            f'Every score row must cover the {num_videos} videos, but rows '
            f'have lengths {widths[:5]}.'
        )
    order = torch.arange(len(rows))
    first = order.new_full((num_captions,), len(rows))
    first.scatter_reduce_(0, rows, order, 'amin')
    fresh = first[rows] == order  # False for duplicates
    widest = max((b['scores'].dtype for b in blocks), key=lambda d: d.itemsize)
    # block by block, without a second copy of the matrix
    scores = torch.empty(num_captions, num_videos, dtype=widest)  # (Bt, Bv)
    columns = torch.empty(num_captions, dtype=torch.long)
    pairs = []  # (text, video) from rows with positives
    plain = torch.ones(num_captions, dtype=torch.bool)
    sizes = [len(block['column']) for block in blocks]
    for block, place, keep in zip(
        blocks, rows.split(sizes), fresh.split(sizes), strict=True
    ):
        scores[place[keep]] = block['scores'][keep].to(widest)
        columns[place[keep]] = block['column'][keep]
        if 'positives' in block:
            counts = block['num_positives']
            plain[place[keep]] = False
            texts = place.repeat_interleave(counts)
            kept = keep.repeat_interleave(counts)
            pairs.append(torch.stack([texts, block['positives']])[:, kept])
    check_finite(scores)
    if not pairs:
        return scores, columns
    texts = torch.where(plain)[0]
    pairs.append(torch.stack([texts, columns[texts]]))
    texts, videos = torch.cat(pairs, dim=1)
    outside = (videos < 0) | (videos >= num_videos)
    if bool(outside.any()):
        raise ValueError(
            f"'positives' are columns from 0 to {num_videos - 1}, but a row "
            f'has {int(videos[outside][0])}.'
        )
    order = (texts * num_videos + videos).argsort()
    return scores, RightPairs(columns, texts[order], videos[order]).simplify()


def _log_row(name: str, summary: Mapping[str, float]) -> None:
    whole = ('ties', 'unanswerable')
    values = '  '.join(
        f'{key} {int(value) if key in whole else format(value, ".2f")}'
        for key, value in summary.items()
    )
    print_log(f'{name:<14} {values}', logger='current')


def _count(
    scores: Tensor,
    right: Tensor | RightPairs,
    meta: Mapping[str, Any],
    num_repeated: int,
) -> tuple[dict[str, int], dict[str, float], str]:
    """Count unanswerable queries and missing items; describe the counts."""
    said: list[str] = []
    incomplete: dict[str, float] = {}
    for name, key, found in (
        ('texts', 'captions', scores.shape[0]),
        ('videos', 'videos', scores.shape[1] + num_repeated),
    ):
        # the published count, or else that of the file
        expected = meta.get(f'published_{key}', meta.get(f'num_{key}'))
        if expected not in (None, found):
            incomplete[f'{name}_found'] = found
            incomplete[f'{name}_expected'] = expected
        expected = 'unknown' if expected is None else expected
        said.append(f'{name}: found {found} of {expected}')
    if num_repeated:
        said.append(
            f'{num_repeated} videos are in several parts and are one '
            'candidate each'
        )
    pairs = _as_pairs(right)
    if isinstance(right, RightPairs):
        said.append(f'{len(pairs.texts)} right pairs, any right one counts')
    unanswerable = {
        't2v': scores.shape[0] - len(pairs.texts.unique()),
        'v2t': scores.shape[1] - len(pairs.videos.unique()),
    }
    for way, words in (
        ('t2v', 'texts without a right video are no queries'),
        ('v2t', 'videos without a text are no queries'),
    ):
        if unanswerable[way]:
            said.append(f'{unanswerable[way]} {words}')
    return unanswerable, incomplete, ', '.join(said)


def _as_pairs(right: Tensor | RightPairs) -> RightPairs:
    """Convert a plain vector to right pairs."""
    if isinstance(right, RightPairs):
        return right
    return RightPairs(right, torch.arange(len(right)), right)


def _groups(right: Tensor | RightPairs) -> Tensor:
    """Bootstrap group of each caption query: captions of one video."""
    if isinstance(right, RightPairs):
        return right.groups()[right.texts.unique()]
    return right
