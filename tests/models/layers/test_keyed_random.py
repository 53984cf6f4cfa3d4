"""Random numbers that depend on their key alone."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.layers import KeyedRandom, PairRandom
from eaglenet_mm.models.layers.keyed_random import kept_share

LIKE = torch.zeros(1)
KEYS = torch.tensor([3, 8])


def draw(
    seed: int = 1, step: int = 2, purpose: str = 'a', key: int = 3
) -> torch.Tensor:
    random = KeyedRandom(seed, step)
    return random.uniform(purpose, torch.tensor([key]), (4,), LIKE)


@pytest.mark.parametrize('kind', ['uniform', 'normal'])
def test_same_key_same_numbers(kind: str) -> None:
    one, other = KeyedRandom(1, 2), KeyedRandom(1, 2)
    both = getattr(one, kind)('a', KEYS, (4, 3), LIKE)
    assert both.shape == (2, 4, 3)
    assert torch.equal(both, getattr(other, kind)('a', KEYS, (4, 3), LIKE))
    alone = getattr(one, kind)('a', KEYS[1:], (4, 3), LIKE)
    assert torch.equal(both[1:], alone)
    assert torch.equal(
        one.permutation('a', 9, LIKE), other.permutation('a', 9, LIKE)
    )


@pytest.mark.parametrize(
    'other',
    [dict(seed=2), dict(step=3), dict(purpose='b'), dict(key=4)],
    ids=str,
)
def test_every_part_of_the_key_counts(other: dict) -> None:
    assert not torch.equal(draw(), draw(**other))


def test_types_draw_the_same_numbers() -> None:
    random = KeyedRandom(0)
    torch.testing.assert_close(
        random.uniform('a', KEYS, (5,), LIKE.double()).float(),
        random.uniform('a', KEYS, (5,), LIKE),
    )


def test_blocks_do_not_change_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the words of all keys are mixed at once or key by key."""
    keys = torch.arange(7)
    whole = KeyedRandom(0).uniform('a', keys, (100,), LIKE)
    monkeypatch.setattr('eaglenet_mm.models.layers.keyed_random._BLOCK', 150)
    assert torch.equal(KeyedRandom(0).uniform('a', keys, (100,), LIKE), whole)


@pytest.mark.parametrize('kind', ['uniform', 'normal'])
def test_distribution(kind: str) -> None:
    """Kolmogorov-Smirnov distance, and no trace of key or place."""
    keys = torch.arange(400)
    numbers = getattr(KeyedRandom(0), kind)('a', keys, (500,), LIKE).double()
    share = numbers if kind == 'uniform' else torch.special.ndtr(numbers)
    assert share.min() >= 0
    assert share.max() < 1
    ordered = share.flatten().sort().values
    count = len(ordered)
    distance = (ordered - (torch.arange(count) + 0.5) / count).abs().max()
    assert distance < 2.0 / count**0.5  # p < 1e-3 lies at 1.95
    # the means of keys, and of places, spread as those of free draws do
    for axis in (0, 1):
        means = (share.mean(dim=axis) - 0.5) * (12 * share.shape[axis]) ** 0.5
        assert 0.85 < means.std() < 1.15
        assert means.abs().max() < 5
    for one, other in (
        (share[1:], share[:-1]),
        (share[:, 1:], share[:, :-1]),
        (share[:200], share[200:]),
        (share[1:, 1:], share[:-1, :-1]),
    ):
        product = ((one - 0.5) * (other - 0.5)).mean() * 12
        assert abs(product) < 5 / one.numel() ** 0.5


def words(keys: torch.Tensor, count: int) -> torch.Tensor:
    blocks = KeyedRandom(0).words('a', keys, count, LIKE.device)
    return torch.cat([words.clone() for _, words in blocks])


@pytest.mark.parametrize('bit', [0, 7, 15, 16, 23, 31])
def test_every_bit_is_fair(bit: int) -> None:
    drawn = words(torch.arange(100), 1000)
    share = ((drawn >> bit) & 1).double().mean()
    assert abs(share - 0.5) < 5 * 0.5 / drawn.numel() ** 0.5


def test_neighbouring_keys_flip_half_of_the_bits() -> None:
    keys = torch.arange(200)
    pairs = keys * 2**32  # as of the videos of one text
    for given in (keys, pairs):
        drawn = words(given, 64)
        flipped = drawn[1:] ^ drawn[:-1]
        bits = sum(((flipped >> bit) & 1).double().mean() for bit in range(32))
        assert abs(float(bits) - 16) < 0.2


def test_dropout_drops_its_share() -> None:
    random, keys = KeyedRandom(0), torch.arange(50)
    for rate in (0.3, 0.5):
        mask = random.dropout_mask('a', keys, (3, 67), rate, LIKE)
        assert mask.shape == (50, 3, 67)
        kept = kept_share(rate)
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / kept])
        assert abs(float((mask > 0).double().mean()) - kept) < 0.03
        assert kept == pytest.approx(1 - rate, abs=1e-5)


def test_pairs_draw_the_same_in_every_chunk() -> None:
    def draws(rows: range, columns: range) -> list[torch.Tensor]:
        pairs = PairRandom(KeyedRandom(0), rows, columns)
        return [
            pairs.uniform('a', 3, 2, like=LIKE),
            pairs.normal('a', 3, 2, like=LIKE),
            pairs.dropout_mask('a', 3, 2, rate=0.5, like=LIKE),
        ]

    whole = draws(range(4), range(6))
    part = draws(range(1, 4, 2), range(2, 5))
    for one, other in zip(whole, part, strict=True):
        assert one.shape == (6, 4, 3, 2)
        assert torch.equal(one[2:5, 1::2], other)
    flat = whole[0].flatten(0, 1).flatten(1)
    assert len(flat.unique(dim=0)) == 24
    assert PairRandom(KeyedRandom(0), range(1), range(1)).dropout_mask(
        'a', 3, rate=0.0, like=LIKE
    ) is None  # fmt: skip
