"""What holds for every first stage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eaglenet_mm.search.shortlisters import Shortlister
from tests.search.shortlisters.conftest import Make
from tests.search.shortlisters.reference import (
    WIDTH,
    as_dict,
    brute_force,
    coarse_vectors,
    unit_vectors,
)


def check(
    shortlister: Shortlister,
    held: dict[int, Tensor],
    queries: Tensor,
    count: int,
    tolerance: float = 1e-6,
) -> None:
    """Compare with a loop over all vectors."""
    scores, row_ids = shortlister.search(queries, count)
    wanted, wanted_ids = brute_force(held, queries, count)
    assert scores.dtype == torch.float32
    assert row_ids.dtype == torch.int64
    assert row_ids.tolist() == wanted_ids
    torch.testing.assert_close(
        scores, torch.tensor(wanted).float(), atol=tolerance, rtol=0
    )
    assert len(shortlister) == len(held)
    assert shortlister.row_ids().tolist() == sorted(held)


@pytest.mark.parametrize('size', [1, 2, 7, 63, 64, 65, 300])
def test_agrees_with_a_loop_over_all(make: Make, size: int) -> None:
    vectors, queries = unit_vectors(size).half(), unit_vectors(3)
    row_ids = torch.randperm(10 * size)[:size]
    shortlister = make(WIDTH)

    shortlister.add(row_ids, vectors)

    held = as_dict(row_ids, vectors)
    for count in (1, 5, size, size + 10):
        check(shortlister, held, queries, count)


def test_of_equal_scores_the_lower_id_comes_first(make: Make) -> None:
    vectors, queries = coarse_vectors(300), coarse_vectors(4)
    queries[-1] = 0  # all scores equal
    row_ids = torch.randperm(300)
    shortlister = make(WIDTH)
    shortlister.add(row_ids, vectors)

    for count in (1, 3, 50, 300):
        check(shortlister, as_dict(row_ids, vectors), queries, count)


def test_adds_removes_and_adds_again(make: Make) -> None:
    vectors, queries = coarse_vectors(250), coarse_vectors(3)
    row_ids = torch.arange(250)
    shortlister = make(WIDTH)
    shortlister.add(row_ids[:200], vectors[:200])
    gone = torch.cat([row_ids[:30], row_ids[150:200], row_ids[77:78]])

    shortlister.remove(gone)

    held = as_dict(row_ids[:200], vectors[:200])
    for row in gone.tolist():
        del held[row]
    check(shortlister, held, queries, 40)
    # a row may come back as another vector, and new ones fill the gaps
    again = torch.cat([gone[:10], row_ids[200:]])
    other = coarse_vectors(len(again))
    shortlister.add(again, other)
    check(shortlister, held | as_dict(again, other), queries, 40)
    shortlister.remove(shortlister.row_ids())
    assert len(shortlister) == 0
    assert shortlister.search(queries, 3)[1].shape == (3, 0)
    shortlister.add(row_ids[:5], vectors[:5])
    check(shortlister, as_dict(row_ids[:5], vectors[:5]), queries, 2)


def test_an_empty_one_finds_nothing(make: Make) -> None:
    shortlister = make(WIDTH)

    scores, row_ids = shortlister.search(unit_vectors(2), 5)

    assert scores.shape == row_ids.shape == (2, 0)
    assert len(shortlister) == 0
    assert shortlister.row_ids().shape == (0,)
    shortlister.add(torch.zeros(0).long(), torch.zeros(0, WIDTH))
    shortlister.remove(torch.zeros(0).long())
    assert shortlister.search(torch.zeros(0, WIDTH), 5)[0].shape == (0, 0)


def test_finds_for_no_query(make: Make) -> None:
    shortlister = make(WIDTH)
    shortlister.add(torch.arange(4), unit_vectors(4))

    scores, row_ids = shortlister.search(torch.zeros(0, WIDTH), 3)

    assert scores.shape == row_ids.shape == (0, 3)


@pytest.mark.parametrize(
    ('row_ids', 'vectors', 'message'),
    [
        ([3], torch.zeros(1, WIDTH), 'Rows 3 are held already'),
        ([5, 6, 5], torch.zeros(3, WIDTH), 'ids 5 are named more than once'),
        ([-1], torch.zeros(1, WIDTH), 'must not be negative, but -1'),
        ([5], torch.zeros(1, WIDTH + 1), r'shape \(n, 8\), not \(1, 9\)'),
        ([5], torch.zeros(WIDTH), r'shape \(n, 8\), not \(8,\)'),
        ([5], torch.zeros(2, WIDTH), '1 row ids but 2 vectors'),
        ([5], torch.zeros(1, WIDTH).long(), 'must be floats'),
        ([5], torch.full((1, WIDTH), torch.nan), 'must be finite'),
        ([5], torch.full((1, WIDTH), torch.inf), 'must be finite'),
        ([5], torch.ones(1, WIDTH), 'length 2.83. Normalise'),
        ([5.0], torch.zeros(1, WIDTH), 'must be int64'),
    ],
)
def test_refuses_to_add(
    make: Make, row_ids: list[int], vectors: Tensor, message: str
) -> None:
    shortlister = make(WIDTH)
    held = as_dict(torch.arange(4), coarse_vectors(4))
    shortlister.add(torch.arange(4), torch.stack(list(held.values())))

    with pytest.raises(ValueError, match=message):
        shortlister.add(torch.tensor(row_ids), vectors)

    check(shortlister, held, coarse_vectors(2), 4)  # nothing has changed


@pytest.mark.parametrize(
    ('row_ids', 'message'),
    [([2, 9], 'Rows 9 are not held'), ([2, 2], 'more than once')],
)
def test_refuses_to_remove(
    make: Make, row_ids: list[int], message: str
) -> None:
    shortlister = make(WIDTH)
    shortlister.add(torch.arange(4), unit_vectors(4))

    with pytest.raises(ValueError, match=message):
        shortlister.remove(torch.tensor(row_ids))

    assert len(shortlister) == 4


@pytest.mark.parametrize(
    ('queries', 'count', 'message'),
    [
        (torch.full((1, WIDTH), torch.nan), 1, 'Queries must be finite'),
        (torch.zeros(1, WIDTH - 1), 1, r'Queries must have shape \(n, 8\)'),
        (torch.zeros(1, WIDTH), 0, 'count must be at least 1'),
    ],
)
def test_refuses_to_search(
    make: Make, queries: Tensor, count: int, message: str
) -> None:
    shortlister = make(WIDTH)
    shortlister.add(torch.arange(4), unit_vectors(4))

    with pytest.raises(ValueError, match=message):
        shortlister.search(queries, count)


def test_synchronise_reads_what_is_missing_only(make: Make) -> None:
    vectors, queries = coarse_vectors(300), coarse_vectors(3)
    shortlister, read = make(WIDTH), []

    def read_vectors(row_ids: Tensor) -> Tensor:
        assert len(row_ids) <= 64
        read.extend(row_ids.tolist())
        return vectors[row_ids]

    first = torch.arange(0, 300, 2)
    shortlister.synchronise(first, read_vectors, block=64)
    check(shortlister, as_dict(first, vectors[first]), queries, 20)
    assert set(read) == set(first.tolist())

    read.clear()
    second = torch.arange(100, 300).flip(0)
    shortlister.synchronise(second, read_vectors, block=64)
    check(shortlister, as_dict(second, vectors[second]), queries, 20)
    missing = set(second.tolist()) - set(first.tolist())
    # a database may compare a few rows that it held before
    assert missing <= set(read)
    assert len(read) <= len(missing) + 32

    read.clear()
    shortlister.synchronise(second, read_vectors, block=64)
    assert not read  # nothing had changed
    shortlister.remove(second[:1])
    shortlister.synchronise(second, read_vectors, block=64)
    assert second[0] in read

    shortlister.synchronise(torch.zeros(0).long(), read_vectors)
    assert len(shortlister) == 0


def test_two_do_not_mix(make: Make) -> None:
    first, second = make(WIDTH), make(WIDTH)

    first.add(torch.tensor([1]), unit_vectors(1))

    assert len(first) == 1
    assert len(second) == 0


def test_closes_twice(make: Make) -> None:
    shortlister = make(WIDTH)
    shortlister.add(torch.tensor([1]), unit_vectors(1))

    shortlister.close()
    shortlister.close()
