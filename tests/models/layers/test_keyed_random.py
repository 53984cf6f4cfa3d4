"""Random numbers that depend on their key alone."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.layers import GraphDropout, KeyedRandom

LIKE = torch.zeros(1)


def test_same_key_same_numbers() -> None:
    one, other = KeyedRandom(1, 2), KeyedRandom(1, 2)
    torch.testing.assert_close(
        one.uniform('a', (4,), LIKE, 3), other.uniform('a', (4,), LIKE, 3)
    )
    torch.testing.assert_close(
        one.normal('a', (4,), LIKE, 3), other.normal('a', (4,), LIKE, 3)
    )
    assert torch.equal(
        one.permutation('a', 9, LIKE), other.permutation('a', 9, LIKE)
    )


@pytest.mark.parametrize(
    'other',
    [
        lambda: KeyedRandom(2, 2).uniform('a', (4,), LIKE, 3),
        lambda: KeyedRandom(1, 3).uniform('a', (4,), LIKE, 3),
        lambda: KeyedRandom(1, 2).uniform('b', (4,), LIKE, 3),
        lambda: KeyedRandom(1, 2).uniform('a', (4,), LIKE, 4),
    ],
    ids=['seed', 'step', 'purpose', 'row'],
)
def test_every_part_of_the_key_counts(other: object) -> None:
    base = KeyedRandom(1, 2).uniform('a', (4,), LIKE, 3)
    assert not torch.equal(base, other())


def test_types_draw_the_same_numbers() -> None:
    random = KeyedRandom(0)
    torch.testing.assert_close(
        random.uniform('a', (5,), LIKE.double()).float(),
        random.uniform('a', (5,), LIKE),
    )


def test_numbers_are_spread_as_they_should() -> None:
    random = KeyedRandom(0)
    rows = torch.stack(
        [random.uniform('a', (100,), LIKE, row) for row in range(100)]
    )
    assert abs(float(rows.mean()) - 0.5) < 0.01
    normal = random.normal('a', (10_000,), LIKE)
    assert abs(float(normal.mean())) < 0.05
    assert abs(float(normal.std()) - 1) < 0.05
    # rows are independent of one another
    assert rows.T.corrcoef().triu(1).abs().max() < 0.5


def test_keep_mask_scales_what_it_keeps() -> None:
    mask = KeyedRandom(0).keep_mask('a', range(50), (200,), 0.25, LIKE)
    assert mask.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs(float((mask == 0).float().mean()) - 0.25) < 0.02
    assert KeyedRandom(0).keep_mask('a', range(2), (3,), 0.0, LIKE) is None


def test_graph_dropout_is_the_same_in_chunks() -> None:
    nodes = torch.ones(4, 6, 3, 2)
    whole = GraphDropout(KeyedRandom(0), range(4), slice(0, 6), 6, 0.5)
    part = GraphDropout(KeyedRandom(0), range(1, 3), slice(2, 5), 6, 0.5)
    torch.testing.assert_close(
        part(nodes[1:3, 2:5], 'x'), whole(nodes, 'x')[1:3, 2:5]
    )
    assert not torch.equal(whole(nodes, 'x'), whole(nodes, 'y'))
