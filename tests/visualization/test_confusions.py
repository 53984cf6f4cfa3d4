from __future__ import annotations

import pytest
import torch

from eaglenet_mm.structures import TextFeatures
from eaglenet_mm.visualization.confusions import (
    confusion_matrix,
    find_confusions,
)

# five captions; video 0 has two, video 3 none
TARGETS = [0, 0, 1, 2, 2]
SCORES = torch.tensor(
    [
        [0.2, 0.9, 0.1, 0.0],  # 0 -> 1
        [0.8, 0.1, 0.1, 0.0],
        [0.7, 0.3, 0.1, 0.0],  # 1 -> 0
        [0.1, 0.1, 0.3, 0.6],  # 2 -> 3
        [0.1, 0.1, 0.9, 0.6],
    ]
)
FIRSTS = SCORES.argmax(1).tolist()
EMBEDS = torch.tensor([[1.0, 0], [0, 2], [3, 3], [0, 1], [-1, 0]])


def encode(rows) -> TextFeatures:
    return TextFeatures(EMBEDS[list(rows)])


def test_pairs_are_counted_both_ways() -> None:
    first, second = find_confusions(SCORES, TARGETS, FIRSTS, encode)
    assert (first.row, first.column, first.count) == (0, 1, 2)
    assert first.margin == pytest.approx(0.7)
    assert first.other_row == 2
    assert first.caption_cosine == pytest.approx(2**-0.5, abs=1e-4)
    assert (second.row, second.column, second.count) == (3, 3, 1)
    assert (second.other_row, second.caption_cosine) == (-1, 0)


def test_of_several_captions_the_nearest_is_named() -> None:
    scores = SCORES.clone()
    scores[0] = torch.tensor([0.9, 0.2, 0.1, 0.0])  # only 1 -> 0 is left
    firsts = scores.argmax(1).tolist()
    first = find_confusions(scores, TARGETS, firsts, encode)[0]
    # captions 0 and 1 are at 45 degrees both; the first of equal ones
    assert (first.row, first.column, first.other_row) == (2, 0, 0)


def test_the_matrix_averages_captions() -> None:
    found = find_confusions(SCORES, TARGETS, FIRSTS, encode)
    matrix = confusion_matrix(SCORES, TARGETS, FIRSTS, found)
    assert matrix.columns == [0, 1, 2]  # video 3 has no caption
    assert matrix.rows == [0, 2, 3]
    assert matrix.scores[0] == pytest.approx([0.5, 0.5, 0.1])
    assert matrix.firsts == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_no_failure_no_confusion() -> None:
    scores = torch.eye(3)
    assert find_confusions(scores, [0, 1, 2], [0, 1, 2], encode) == []
    matrix = confusion_matrix(scores, [0, 1, 2], [0, 1, 2], [])
    assert matrix.columns == []


def test_only_the_worst_are_kept() -> None:
    targets = list(range(40))
    firsts = [column ^ 1 for column in targets]  # neighbours take each other
    scores = torch.zeros(40, 40)
    for row, first in enumerate(firsts):
        scores[row, first] = row
    found = find_confusions(
        scores,
        targets,
        firsts,
        lambda rows: TextFeatures(torch.ones(len(rows), 2)),
    )
    assert len(found) == 12
    assert [item.row for item in found[:3]] == [39, 37, 35]
    matrix = confusion_matrix(scores, targets, firsts, found)
    assert len(matrix.columns) == 12
