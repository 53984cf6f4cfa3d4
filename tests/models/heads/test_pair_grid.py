"""Every pair once, kept or computed again with the same numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from eaglenet_mm.models.heads.pair_grid import PairGrid
from eaglenet_mm.models.layers import KeyedRandom
from eaglenet_mm.structures import EmbedsState

ROWS, COLUMNS = range(1, 10, 2), range(4)  # a second process of two


def compute(grid: PairGrid) -> tuple[torch.Tensor, torch.Tensor, Counter]:
    """Noisy sums of all pairs, the gradient, and how often each was made."""
    made: Counter = Counter()

    def add(texts: Any, videos: Any, random: Any) -> torch.Tensor:
        noise = random.normal('noise', like=videos.embeds).T
        made.update((r, c) for r in random.rows for c in random.columns)
        return (texts.embeds + videos.embeds.T) * noise

    texts = torch.arange(5.0).unsqueeze(1).requires_grad_()
    videos = EmbedsState(torch.arange(4.0).unsqueeze(1))
    values = grid.map(add, EmbedsState(texts), videos)
    values.square().sum().backward()
    return values.detach(), texts.grad, made


def grid(budget: int, **options: Any) -> PairGrid:
    return PairGrid(ROWS, COLUMNS, 8, budget, random=KeyedRandom(3), **options)


@pytest.mark.parametrize(
    ('options', 'kept'),
    [
        (dict(budget=160), 20),  # fits to the byte
        (dict(budget=159), 0),  # 19 pairs at once, 15 in whole columns
        (dict(budget=8), 0),
        (dict(budget=24), 0),
        (dict(budget=159, chunk_bytes=40), 10),  # one of three is for others
        (dict(budget=159, chunk_bytes=8, whole_columns=True), 10),
    ],
)
def test_what_fits_is_kept(options: dict[str, Any], kept: int) -> None:
    values, gradient, _ = compute(grid(10**6))
    got, its_gradient, made = compute(grid(**options))
    torch.testing.assert_close(got, values, rtol=0, atol=0)
    torch.testing.assert_close(its_gradient, gradient)
    assert set(made) == {(r, c) for r in ROWS for c in COLUMNS}
    assert sum(count == 1 for count in made.values()) == kept
    assert set(made.values()) <= {1, 2}
    assert grid(**options).fits == (kept == 20)


@pytest.mark.parametrize(
    ('options', 'needed'),
    [(dict(budget=7), 8), (dict(budget=39, whole_columns=True), 40)],
)
def test_a_budget_too_small(options: dict[str, Any], needed: int) -> None:
    with pytest.raises(ValueError, match=f'memory_budget.*need {needed} byt'):
        compute(grid(**options))
    with torch.no_grad():  # nothing is kept
        state = EmbedsState(torch.zeros(5, 1))
        grid(**options).map(
            lambda texts, videos, _: texts.embeds + videos.embeds.T,
            state,
            EmbedsState(torch.zeros(4, 1)),
        )
