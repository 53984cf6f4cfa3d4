"""Pairs of videos that are confused with each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.structures import TextFeatures
from eaglenet_mm.visualization.results_data import Confusion, ConfusionMatrix

_MAX_PAIRS = 12
_MAX_VIDEOS = 12
_MAX_CAPTIONS = 40  # of a video, considered for the nearest caption


def find_confusions(
    scores: Tensor,
    targets: Sequence[int],
    firsts: Sequence[int],
    encode: Callable[[Sequence[int]], TextFeatures],
) -> list[Confusion]:
    """Find the pairs of videos most often returned for each other's captions.

    ``targets`` are the columns of the captions' own videos (-1: none) and
    ``firsts`` those ranked first; ``encode`` takes rows of captions. Pairs are
    sorted by number of captions, then by margin.
    """
    margins: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    for row, (own, first) in enumerate(zip(targets, firsts, strict=True)):
        if own >= 0 and first != own:
            margin = float(scores[row, first] - scores[row, own])
            pair = (min(own, first), max(own, first))
            margins[pair].append((margin, row))
    ordered = sorted(
        (-len(found), -max(found)[0], pair) for pair, found in margins.items()
    )
    captions = _captions_of(targets)
    confusions = []
    for count, _, pair in ordered[:_MAX_PAIRS]:
        margin, row = max(margins[pair])
        column = pair[0] if targets[row] == pair[1] else pair[1]
        other, cosine = _nearest(row, captions[column], encode)
        confusions.append(
            Confusion(
                row=row,
                column=column,
                count=-count,
                margin=float(f'{margin:.6g}'),
                other_row=other,
                caption_cosine=cosine,
            )
        )
    return confusions


def confusion_matrix(
    scores: Tensor,
    targets: Sequence[int],
    firsts: Sequence[int],
    confusions: Sequence[Confusion],
) -> ConfusionMatrix:
    """Mean scores among the most confused videos, 12 at most."""
    captions = _captions_of(targets)
    columns: list[int] = []
    for item in confusions:
        for column in (targets[item.row], item.column):
            if column not in columns and captions[column]:
                columns.append(column)
    columns = columns[:_MAX_VIDEOS]
    matrix = ConfusionMatrix(columns=columns)
    for column in columns:
        rows = captions[column]
        means = scores[rows][:, columns].double().mean(dim=0)
        matrix.rows.append(rows[0])
        matrix.scores.append([float(f'{x:.5g}') for x in means.tolist()])
        hits = [firsts[row] for row in rows]
        matrix.firsts.append([hits.count(other) for other in columns])
    return matrix


def _captions_of(targets: Sequence[int]) -> dict[int, list[int]]:
    captions: dict[int, list[int]] = defaultdict(list)
    for row, column in enumerate(targets):
        captions[column].append(row)
    return captions


def _nearest(
    row: int,
    others: Sequence[int],
    encode: Callable[[Sequence[int]], TextFeatures],
) -> tuple[int, float]:
    """Find the caption nearest to another, and their cosine."""
    others = others[:_MAX_CAPTIONS]
    if not others:
        return -1, 0.0
    embeds = F.normalize(encode([row, *others]).embeds.float(), dim=-1)
    cosines = embeds[1:] @ embeds[0]
    best = int(torch.argmax(cosines))
    return others[best], round(float(cosines[best]), 4)
