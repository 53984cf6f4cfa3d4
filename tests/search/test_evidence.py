"""Conformal refusals, and words that are not known."""

from __future__ import annotations

import math

import pytest
import torch

from eaglenet_mm.datasets.transforms import WordTokenizer
from eaglenet_mm.search.evidence import (
    Calibration,
    characters_read,
    check_alpha,
    unknown_words,
    words_of,
)


@pytest.mark.parametrize('alpha', [0.05, 0.1, 0.37])
@pytest.mark.parametrize('count', [19, 40, 400])
def test_good_queries_are_refused_as_rarely_as_promised(
    alpha: float, count: int
) -> None:
    """Whatever the scores look like: here mixed, with ties."""
    generator = torch.Generator().manual_seed(count)
    splits, refused, total = 400, 0, 0
    for _ in range(splits):
        scores = torch.randn(count + 50, generator=generator).exp()
        scores = (scores * 20).round() / 20
        calibration = Calibration.of('x', 100, scores[:count].tolist())
        for score in scores[count:].tolist():
            refused += calibration.p_value(score) <= alpha
            total += 1
    # queries of one split are not independent; of splits they are
    error = 3 * math.sqrt(alpha * (1 - alpha) / splits)
    assert refused / total <= alpha + error
    if count == 400:  # and not much more rarely
        assert refused / total >= alpha - error - 0.03


def test_too_few_captions_refuse_nothing() -> None:
    calibration = Calibration.of('x', 100, [1.0, 2.0, 3.0])
    assert calibration.p_value(-99.0) == 0.25


@pytest.mark.parametrize('scores', [[], [1.0, math.nan], [math.inf]])
def test_scores_that_tell_nothing(scores: list[float]) -> None:
    with pytest.raises(ValueError, match='finite scores'):
        Calibration.of('x', 100, scores)


@pytest.mark.parametrize('alpha', [0, 1, -0.1, math.nan])
def test_shares_that_are_none(alpha: float) -> None:
    with pytest.raises(ValueError, match='between 0 and 1'):
        check_alpha(alpha)


def test_words() -> None:
    text = "A dog's RED ball, a red ball. Ärger_x 3"
    assert words_of(text) == ['a', "dog's", 'red', 'ball', 'ärger', 'x', '3']
    tokenizer = WordTokenizer(['a', 'red', 'ball'])
    assert unknown_words(tokenizer, text) == ["dog's", 'ärger', 'x', '3']
    assert unknown_words(lambda x, y: x, text) == []


def test_how_much_is_read() -> None:
    tokenizer = WordTokenizer(['red', 'ball', 'rolls'])
    assert characters_read(tokenizer, 6, 'red ball rolls') is None
    assert characters_read(tokenizer, 4, 'red ball rolls.') == 8
