"""Post-processing that rescores a query with the help of other queries.

Such results belong beside the raw ones, never in their place. In a two-stage
matrix only the head's scores are changed: pairs that are not shortlisted are
left out of all sums and stay below all others, in the order of the first
stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.ranking import (
    check_finite,
    on_shortlist,
)


def dual_softmax(scores: Tensor, *, temperature: float = 100.0) -> Tensor:
    """Rescore by dual softmax (DSL), which damps candidates of many queries.

    ``scores * softmax(temperature * scores, over the queries)``, from `CAMoE
    <https://arxiv.org/abs/2109.04290>`_. Transpose the matrix for the other
    direction.

    Args:
        scores (Tensor): Shape ``(Q, C)``, rows queries.
        temperature (float): Factor inside the softmax. Default: 100, usual
            for cosines.

    Returns:
        Tensor: Float64, shape ``(Q, C)``. Double precision keeps small
        probabilities from becoming equal, which would create ties.

    Raises:
        ValueError: If a score is not finite or ``temperature`` is not
            positive.
    """
    check_finite(scores)
    if not temperature > 0:
        raise ValueError(
            f"'temperature' must be above 0, but got {temperature}."
        )
    scores = scores.double()
    # scores off the shortlist are too low to contribute to the sums
    rescored = scores * (temperature * scores).softmax(dim=0)
    return torch.where(on_shortlist(scores), rescored, scores)


def query_bank_normalisation(
    scores: Tensor,
    bank: Tensor,
    *,
    beta: float = 20.0,
    dynamic: bool = True,
) -> Tensor:
    """Normalise by the scores that a bank of queries gives each candidate.

    QB-Norm, ``exp(beta * s_qc) / sum_b exp(beta * bank_bc)``, from `Cross
    Modal Retrieval with Querybank Normalisation
    <https://arxiv.org/abs/2112.12777>`_. The result is its logarithm, which
    has the same order and cannot overflow. With ``dynamic``, only queries
    whose best candidate is also the best of some bank query are normalised;
    the other rows stay as they are. Compare scores only within a row,
    which is enough for ranking.

    Args:
        scores (Tensor): Shape ``(Q, C)``, rows queries.
        bank (Tensor): Scores of the bank's queries with the same candidates,
            shape ``(N, C)``, N at least 1.
        beta (float): Inverse temperature. Default: 20.
        dynamic (bool): Use the dynamic inverted softmax. Default: True.

    Returns:
        Tensor: Float64, shape ``(Q, C)``.

    Raises:
        ValueError: If a score is not finite, the number of candidates
            differs, the bank is empty, or ``beta`` is not positive.
    """
    check_finite(scores)
    check_finite(bank)
    if not beta > 0:
        raise ValueError(f"'beta' must be above 0, but got {beta}.")
    if bank.shape[1] != scores.shape[1] or bank.shape[0] == 0:
        raise ValueError(
            'The bank needs at least one query, scored with the same '
            f'{scores.shape[1]} candidates, but has shape '
            f'{tuple(bank.shape)}.'
        )
    scores = scores.double()
    bank = bank.to(scores.device).double()
    # candidates that no bank query shortlists are not normalised
    known = on_shortlist(bank).any(dim=0)
    weight = torch.logsumexp(beta * bank, dim=0).where(known, 0.0)
    # scores off the shortlist do not contribute and stay unchanged
    normalised = beta * scores - weight
    normalised = torch.where(on_shortlist(scores), normalised, scores)
    if not dynamic:
        return normalised
    used = torch.isin(scores.argmax(dim=1), bank.argmax(dim=1))  # (Q,)
    return torch.where(used[:, None], normalised, scores)
