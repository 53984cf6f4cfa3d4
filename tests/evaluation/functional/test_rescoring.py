from __future__ import annotations

import math

import pytest
import torch

from eaglenet_mm.evaluation.functional import (
    dual_softmax,
    off_shortlist_scores,
    query_bank_normalisation,
)


def test_dual_softmax_equals_the_formula():
    scores = torch.randn(3, 5)
    rescored = dual_softmax(scores, temperature=7.0)
    assert rescored.shape == (3, 5)
    assert rescored.dtype == torch.float64
    for column in range(5):
        total = sum(math.exp(7 * float(scores[q, column])) for q in range(3))
        for query in range(3):
            score = float(scores[query, column])
            expected = score * math.exp(7 * score) / total
            assert float(rescored[query, column]) == pytest.approx(expected)


@pytest.mark.parametrize('dynamic', [False, True])
def test_query_bank_equals_the_formula(dynamic):
    scores, bank = torch.randn(4, 6), torch.randn(2, 6)
    rescored = query_bank_normalisation(
        scores, bank, beta=3.0, dynamic=dynamic
    )
    active = {int(row.argmax()) for row in bank}
    used = 0
    for query in range(4):
        normalised = not dynamic or int(scores[query].argmax()) in active
        used += normalised
        for column in range(6):
            score = float(scores[query, column])
            expected = score
            if normalised:
                total = sum(math.exp(3 * float(b[column])) for b in bank)
                expected = math.log(math.exp(3 * score) / total)
            assert float(rescored[query, column]) == pytest.approx(expected)
    if dynamic:
        assert used < 4  # both branches were taken


def test_a_popular_candidate_is_damped():
    """A hub that every bank query likes loses to the right answer."""
    scores = torch.tensor([[0.9, 0.8, 0.0], [0.9, 0.0, 0.8]])
    bank = torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    assert scores.argmax(1).tolist() == [0, 0]
    rescored = query_bank_normalisation(scores, bank)
    assert rescored.argmax(1).tolist() == [1, 2]


def test_large_scores_stay_finite():
    scores = 1e4 * torch.randn(3, 3)
    assert query_bank_normalisation(scores, scores).isfinite().all()
    assert dual_softmax(scores).isfinite().all()


def shortlisted() -> tuple[torch.Tensor, torch.Tensor]:
    """A two-stage matrix with a candidate that no query shortlists."""
    scores, scored = torch.randn(4, 5), torch.rand(4, 5) < 0.6
    scored[:, 0] = True
    scored[:, 3] = False
    cheap = off_shortlist_scores(torch.rand(4, 5))
    return torch.where(scored, scores, cheap), scored


@pytest.mark.parametrize('method', ['dsl', 'querybank', 'bank'])
def test_pairs_off_the_shortlist_take_no_part(method):
    """The sums go over scored pairs; the others stay behind, in order."""
    scores, scored = shortlisted()
    bank = torch.randn(3, 5)
    if method == 'dsl':
        rescored = dual_softmax(scores, temperature=2.0)
    else:
        rescored = query_bank_normalisation(
            scores,
            scores if method == 'querybank' else bank,
            beta=2.0,
            dynamic=False,
        )
    assert rescored.isfinite().all()
    assert torch.equal(rescored[~scored], scores.double()[~scored])
    for query, column in scored.nonzero().tolist():
        score = float(scores[query, column])
        others = scores[scored[:, column], column]
        if method == 'bank':
            others = bank[:, column]
        total = sum(math.exp(2 * float(other)) for other in others)
        expected = math.exp(2 * score) / total
        expected = score * expected if method == 'dsl' else math.log(expected)
        assert float(rescored[query, column]) == pytest.approx(expected)


def test_bad_arguments():
    scores = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"'temperature' .* got 0"):
        dual_softmax(scores, temperature=0)
    with pytest.raises(ValueError, match=r"'beta' .* got -1"):
        query_bank_normalisation(scores, scores, beta=-1)
    with pytest.raises(ValueError, match=r'3 candidates, .* \(2, 4\)'):
        query_bank_normalisation(scores, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'at least one query, .* \(0, 3\)'):
        query_bank_normalisation(scores, torch.zeros(0, 3))
    broken = torch.full((2, 3), torch.nan)
    with pytest.raises(ValueError, match='6 of 6 are not'):
        query_bank_normalisation(scores, broken)
    with pytest.raises(ValueError, match='6 of 6 are not'):
        dual_softmax(broken)


def test_a_bank_that_shortlisted_a_candidate_nowhere():
    """Such a candidate is left as it is instead of winning every query."""
    scores = torch.tensor([[0.9, 0.5, 0.4]])
    bank = torch.tensor([[0.3, 0.8, 0.2], [0.2, 0.7, 0.1]])
    off = off_shortlist_scores(torch.tensor([0.1, 0.2]))
    bank[:, 2] = off
    got = query_bank_normalisation(scores, bank, beta=2.0, dynamic=False)
    expected = 2.0 * scores.double() - torch.logsumexp(
        2.0 * bank.double(), dim=0
    )
    torch.testing.assert_close(got[:, :2], expected[:, :2])
    assert float(got[0, 2]) == pytest.approx(0.8)
