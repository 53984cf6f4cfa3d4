"""Why a video was ranked where it was, as lists that a page can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.runner.amp import autocast
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import (
    BasePairHead,
    mean_of_unit_frames,
)
from eaglenet_mm.structures import TextFeatures, VideoFeatures

from .embedding_map import map_pairs
from .results_data import Projection, ShownResult

_TEXTS = 64  # encoded together


def encode_captions(evaluation: Any, rows: Sequence[int]) -> TextFeatures:
    """Encode some captions of an evaluation once more.

    Args:
        evaluation (RetrievalEvaluation): After its scoring.
        rows (Sequence[int]): Captions, as rows of the score matrix.

    Returns:
        TextFeatures: In the order of ``rows``, half precision as float32.
    """
    parts = []
    with autocast(enabled=evaluation.fp16):
        for start in range(0, len(rows), _TEXTS):
            chosen = torch.tensor(list(rows[start : start + _TEXTS]))
            tokens = evaluation.token_ids[chosen.to(evaluation.device)]
            parts.append(evaluation.model.encode_text(tokens))
    half = (torch.float16, torch.bfloat16)
    return TextFeatures.cat(parts).map(
        lambda x: x.float() if x.dtype in half else x
    )


def explain_results(
    head: BasePairHead,
    text: TextFeatures,
    videos: VideoFeatures,
    results: Sequence[ShownResult],
) -> None:
    """Add the weights of a head to the results of one query, in place.

    Args:
        head (BasePairHead): With ``explain``.
        text (TextFeatures): The query, one row.
        videos (VideoFeatures): The whole gallery.
        results (Sequence[ShownResult]): They get their weights.
    """
    places = torch.tensor([result.column for result in results])
    chosen = videos.index_select(places.to(videos.frames.device))
    explanation = head.explain(text, chosen)
    for place, result in enumerate(results):
        result.frame_weights = _as_lists(explanation.frame_weights, place)
        result.text_weights = _as_lists(explanation.text_weights, place)


def _as_lists(weights: dict[str, Tensor], place: int) -> dict[str, list]:
    """Round the weights of one video, of the first text."""
    return {
        name: [round(x, 4) for x in values[0, place].tolist()]
        for name, values in weights.items()
    }


def project_pairs(
    head: BasePairHead,
    texts: TextFeatures,
    videos: VideoFeatures,
    rows: Sequence[int],
    targets: Sequence[int],
) -> list[Projection]:
    """Map texts and their videos before and, if the head tells, after it.

    Args:
        head (BasePairHead): With ``explain``.
        texts (TextFeatures): Of n captions.
        videos (VideoFeatures): The whole gallery.
        rows (Sequence[int]): The captions, as rows of the score matrix.
        targets (Sequence[int]): Columns of their videos.

    Returns:
        list[Projection]: Sentences and mean frames; and the enriched texts
        and pooled videos of the own pairs, of a head that has them; each in
        the two ways of :func:`map_pairs`.
    """
    columns = torch.tensor(list(targets)).to(videos.frames.device)
    own = videos.index_select(columns)
    before = map_pairs(
        'As the encoders give them: sentences and mean frames',
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
