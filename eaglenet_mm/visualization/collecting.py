"""Collection of everything a results page shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional import (
    RightPairs,
    on_shortlist,
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.models.heads.base_pair_head import (
    BasePairHead,
    mean_of_unit_frames,
)
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.progress import Progress
from eaglenet_mm.visualization.confusions import (
    confusion_matrix,
    find_confusions,
)
from eaglenet_mm.visualization.embedding_map import map_pairs
from eaglenet_mm.visualization.frame_strips import make_strip, strip_height
from eaglenet_mm.visualization.rankings import (
    choose_queries,
    first_videos,
    ranks_of_all,
    spread_evenly,
)
from eaglenet_mm.visualization.results_data import (
    Curves,
    Projection,
    RetrievalResults,
    ShownQuery,
    ShownResult,
    ShownVideo,
)
from eaglenet_mm.visualization.set_catalogue import SetCatalogue

_MAP_PAIRS = 120


@torch.no_grad()
def collect_results(
    evaluation: Any,
    scores: Tensor,
    right: Tensor | RightPairs,
    dataset: Any,
    *,
    metrics: Mapping[str, float],
    about: Mapping[str, str],
    num_queries: int,
    curves: Curves,
) -> RetrievalResults:
    """Collect the content of a results page, in one process after scoring.

    Frames of the shown videos are read again. ``scores`` is the complete
    matrix ``(Bt, Bv)`` on the CPU; for ``right`` see
    :func:`~eaglenet_mm.evaluation.functional.text_to_video_ranks`.
    """
    head = evaluation.model.head
    catalogue = SetCatalogue(dataset)
    ranks = ranks_of_all(text_to_video_ranks(scores, right), len(scores))
    firsts, first_scores = first_videos(scores, right, ranks)
    columns = right if isinstance(right, Tensor) else right.columns
    targets = columns.tolist()
    best = _best_columns(scores, right).tolist()
    firsts_of_best = [
        own if rank == 1 else first
        for own, rank, first in zip(
            best, ranks.tolist(), firsts[:, 0].tolist(), strict=True
        )
    ]
    rows, selection = choose_queries(ranks.tolist(), num_queries)
    queries = _queries(rows, scores, best, ranks.tolist(), firsts.tolist())
    texts = evaluation.encode_captions(rows)
    for text, query in zip(texts.split(1), queries, strict=True):
        _explain(head, text, evaluation.videos, query.results)
    pairs = _pairs_of_map(targets)
    # pairs outside the shortlist have placeholder scores
    scored = on_shortlist(scores)
    comparable = torch.where(scored, scores, scores[scored].min())
    confusions = find_confusions(
        comparable, best, firsts_of_best, evaluation.encode_captions
    )
    shown = {item.column for query in queries for item in query.results}
    height = strip_height(len(shown), evaluation.num_frames)
    return RetrievalResults(
        about=dict(about),
        num_frames=evaluation.num_frames,
        metrics={key: float(value) for key, value in metrics.items()},
        captions=catalogue.captions(evaluation.caption_indices),
        video_ids=[str(name) for name in evaluation.video_ids],
        targets=targets,
        ranks=ranks.tolist(),
        video_ranks=video_to_text_ranks(scores, columns).ranks.tolist(),
        top_columns=firsts.tolist(),
        top_scores=[
            [float(f'{x:.6g}') for x in row] for row in first_scores.tolist()
        ],
        selection=selection,
        queries=queries,
        videos=_strips(evaluation, catalogue, sorted(shown), height),
        projections=_project_pairs(
            head,
            evaluation.encode_captions(pairs),
            evaluation.videos,
            pairs,
            [targets[row] for row in pairs],
        ),
        confusions=confusions,
        matrix=confusion_matrix(comparable, best, firsts_of_best, confusions),
        curves=curves,
        right=None if isinstance(right, Tensor) else _lists(right),
    )


def _best_columns(scores: Tensor, right: Tensor | RightPairs) -> Tensor:
    """Find the best-scored right video of each text; -1 if it has none."""
    if isinstance(right, Tensor):
        return right
    best = torch.full_like(right.columns, -1)
    values = scores[right.texts, right.videos]
    # ascending, so that the highest score of each text is written last
    order = values.argsort(stable=True)
    for text, video in zip(
        right.texts[order].tolist(), right.videos[order].tolist(), strict=True
    ):
        best[text] = video
    return best


def _lists(right: RightPairs) -> list[list[int]]:
    """List the right videos of each text."""
    lists: list[list[int]] = [[] for _ in range(len(right))]
    for text, video in zip(
        right.texts.tolist(), right.videos.tolist(), strict=True
    ):
        lists[text].append(video)
    return lists


def _queries(
    rows: Iterable[int],
    scores: Tensor,
    targets: Sequence[int],
    ranks: Sequence[int],
    firsts: Sequence[Sequence[int]],
) -> list[ShownQuery]:
    """List the top videos of each query, followed by the right one."""
    queries = []
    for row in rows:
        places = list(enumerate(firsts[row], 1))
        if ranks[row] > len(places):
            places.append((ranks[row], targets[row]))
        results = [
            ShownResult(
                column, rank, float(f'{float(scores[row, column]):.6g}')
            )
            for rank, column in places
        ]
        queries.append(ShownQuery(row, results))
    return queries


def _pairs_of_map(targets: Sequence[int]) -> list[int]:
    """Choose one caption each of videos spread evenly over the set."""
    first: dict[int, int] = {}
    for row, column in enumerate(targets):
        if column >= 0:
            first.setdefault(column, row)
    rows = [first[column] for column in sorted(first)]
    return [rows[place] for place in spread_evenly(len(rows), _MAP_PAIRS)]


def _strips(
    evaluation: Any,
    catalogue: SetCatalogue,
    columns: Sequence[int],
    height: int,
) -> list[ShownVideo]:
    """Read the frames of the shown videos again."""
    progress = Progress('videos of the page', len(columns))
    strips = []
    for column in columns:
        index, length = evaluation.video_indices[column], evaluation.num_frames
        strips.append(make_strip(catalogue, index, column, length, height))
        progress.update(1)
    progress.close()
    return strips


def _explain(
    head: BasePairHead,
    text: TextFeatures,
    videos: VideoFeatures,
    results: Sequence[ShownResult],
) -> None:
    """Add the weights of the head to the results of a query, in place."""

    def rounded(weights: dict[str, Tensor], place: int) -> dict[str, list]:
        return {
            name: [round(x, 4) for x in values[0, place].tolist()]
            for name, values in weights.items()
        }

    places = torch.tensor([result.column for result in results])
    chosen = videos.index_select(places.to(videos.frames.device))
    explanation = head.explain(text, chosen)
    for place, result in enumerate(results):
        result.frame_weights = rounded(explanation.frame_weights, place)
        result.text_weights = rounded(explanation.text_weights, place)


def _project_pairs(
    head: BasePairHead,
    texts: TextFeatures,
    videos: VideoFeatures,
    rows: Sequence[int],
    targets: Sequence[int],
) -> list[Projection]:
    """Map texts and their videos, before and (if exposed) after the head."""
    columns = torch.tensor(list(targets)).to(videos.frames.device)
    own = videos.index_select(columns)
    before = map_pairs(
        'From the encoders: sentences and mean frames',
        'text',
        rows,
        texts.embeds,
        mean_of_unit_frames(own),
    )
    enriched, pooled = [], []
    for place in range(len(rows)):
        pair = slice(place, place + 1)
        found = head.explain(texts.index_select(pair), own.index_select(pair))
        if found.enriched is None or found.pooled is None:
            return before
        enriched.append(found.enriched[0])
        pooled.append(found.pooled[0])
    after = map_pairs(
        'After the head: enriched texts and videos pooled for them',
        'enriched text',
        rows,
        torch.cat(enriched),
        torch.cat(pooled),
    )
    return [*before, *after]
