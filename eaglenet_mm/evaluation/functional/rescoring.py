"""Post-processing of a score matrix that uses other queries.

Both methods look at more than one query at a time, so their numbers belong
beside the raw ones, never in their place. Of a two-stage matrix they rescore
what the head has scored: pairs off the shortlist take no part in any sum, and
stay below all others in the order of the first stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional.ranking import (
    check_finite,
    on_shortlist,
)


def dual_softmax(scores: Tensor, *, temperature: float = 100.0) -> Tensor:
    """Damp candidates that many queries like (dual softmax, DSL).

    ``scores * softmax(temperature * scores, over the queries)``, of `CAMoE
    <https://arxiv.org/abs/2109.04290>`_. Works on any ``(Q, C)``; for the
    other direction hand over the transposed matrix.

    Args:
        scores (Tensor): Shape ``(Q, C)``, rows queries.
        temperature (float): Factor inside the softmax. Default: 100, the
            usual choice for cosines.

    Returns:
        Tensor: Float64, shape ``(Q, C)``. Double precision keeps small
        probabilities from becoming equal, which would be ties.

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
    # off the shortlist scores are so low that they add nothing to the sums
    rescored = scores * (temperature * scores).softmax(dim=0)
    return torch.where(on_shortlist(scores), rescored, scores)


def query_bank_normalisation(
    scores: Tensor,
    bank: Tensor,
    *,
    beta: float = 20.0,
    dynamic: bool = True,
) -> Tensor:
    """Divide by what a bank of queries gives each candidate (QB-Norm).

    ``exp(beta * s_qc) / sum_b exp(beta * bank_bc)`` of `Cross Modal Retrieval
    with Querybank Normalisation <https://arxiv.org/abs/2112.12777>`_, returned
    as its logarithm, which has the same order and cannot overflow. With
    ``dynamic`` only queries whose best candidate is the best one of some bank
    query are normalised; the other rows stay as they are. Rows are therefore
    comparable within themselves only, which is all that ranking needs.

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
    # a candidate on no shortlist of the bank's queries is not normalised
    known = on_shortlist(bank).any(dim=0)
    weight = torch.logsumexp(beta * bank, dim=0).where(known, 0.0)
    # off the shortlist scores add nothing to the sums, and stay
    normalised = beta * scores - weight
    normalised = torch.where(on_shortlist(scores), normalised, scores)
    if not dynamic:
        return normalised
    # only where the best candidate is the best one of a bank query, too
    use = torch.isin(scores.argmax(dim=1), bank.argmax(dim=1))  # (Q,)
    return torch.where(use[:, None], normalised, scores)
