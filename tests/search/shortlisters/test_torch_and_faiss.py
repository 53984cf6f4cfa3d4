"""The first stages in memory: random histories, equal vectors, recall."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters import (
    FaissShortlister,
    TorchShortlister,
)
from tests.search.shortlisters.conftest import KINDS, need
from tests.search.shortlisters.reference import (
    WIDTH,
    as_dict,
    brute_force,
    coarse_vectors,
    unit_vectors,
)

_IN_MEMORY = ['torch', 'torch-blocks', 'faiss-flat', 'faiss-cells']


@pytest.mark.parametrize('kind', _IN_MEMORY)
@given(data=st.data(), seed=st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_any_history_ends_as_a_dict(
    kind: str, data: st.DataObject, seed: int
) -> None:
    need(kind)
    torch.manual_seed(seed)
    shortlister = SHORTLISTERS.build(dict(KINDS[kind], embed_dim=WIDTH))
    held: dict[int, Tensor] = {}
    for _ in range(data.draw(st.integers(1, 8))):
        action = data.draw(st.sampled_from(['add', 'remove', 'search']))
        if action == 'add':
            free = torch.tensor([x for x in range(400) if x not in held])
            count = data.draw(st.integers(0, min(150, len(free))))
            row_ids = free[torch.randperm(len(free))[:count]].long()
            vectors = coarse_vectors(count)
            shortlister.add(row_ids, vectors)
            held |= as_dict(row_ids, vectors)
        elif action == 'remove' and held:
            count = data.draw(st.integers(1, len(held)))
            row_ids = torch.tensor(sorted(held))
            row_ids = row_ids[torch.randperm(len(held))[:count]]
            shortlister.remove(row_ids)
            for row in row_ids.tolist():
                del held[row]
        else:
            queries = coarse_vectors(2)
            count = data.draw(st.integers(1, 450))
            scores, row_ids = shortlister.search(queries, count)
            wanted = brute_force(held, queries, count)
            assert (scores.tolist(), row_ids.tolist()) == wanted
    assert shortlister.row_ids().tolist() == sorted(held)


@pytest.mark.parametrize('queries', [1, 2, 5])
def test_equal_vectors_score_the_same_in_any_place(queries: int) -> None:
    # left-over rows of a product are rounded otherwise: see _PANEL
    size = 20_011
    vectors = unit_vectors(size, 64)
    vectors[::7] = vectors[0]
    vectors[-5:] = vectors[0]
    same = (vectors == vectors[0]).all(dim=1).nonzero().flatten()
    shortlister = TorchShortlister(64)
    shortlister.add(torch.arange(size), vectors)

    scores, row_ids = shortlister.search(
        vectors[:1].expand(queries, -1), len(same)
    )

    assert row_ids.tolist() == [same.tolist()] * queries
    # for each query: a left-over one may be rounded otherwise than the rest
    assert (scores == scores[:, :1]).all()


def test_removing_leaves_no_gap() -> None:
    shortlister = TorchShortlister(WIDTH, capacity=100)
    place = shortlister._matrix.data_ptr()
    for step in range(50):
        row_ids = torch.arange(90) + 90 * step
        shortlister.add(row_ids, unit_vectors(90))
        shortlister.remove(row_ids)

    assert shortlister._matrix.data_ptr() == place  # never copied


def test_half_precision_multiplies_in_float32() -> None:
    vectors = unit_vectors(5000, 64).half()
    query = unit_vectors(1, 64)
    shortlister = TorchShortlister(64, dtype='float16')
    shortlister.add(torch.arange(5000), vectors)

    scores, row_ids = shortlister.search(query, 10)

    wanted = (query.double() @ vectors.double().t()).topk(10)
    assert row_ids[0].tolist() == wanted.indices[0].tolist()
    torch.testing.assert_close(
        scores.double(), wanted.values, atol=1e-6, rtol=0
    )
    assert not shortlister.exact
    with pytest.raises(ValueError, match="not 'int8'"):
        TorchShortlister(64, dtype='int8')


def clustered(count: int, clusters: int, width: int) -> Tensor:
    centres = torch.randn(clusters, width)
    nearby = centres[torch.randint(clusters, (count,))]
    vectors = nearby + 0.5 * torch.randn(count, width)
    return vectors / vectors.norm(dim=1, keepdim=True)


def recall(shortlister: FaissShortlister, vectors: Tensor) -> float:
    queries = vectors[:50] + 0.05 * torch.randn(50, vectors.shape[1])
    found = shortlister.search(queries, 20)[1]
    wanted = (queries @ vectors.t()).topk(20).indices
    hits = [
        len(set(a) & set(b))
        for a, b in zip(found.tolist(), wanted.tolist(), strict=True)
    ]
    return sum(hits) / (20 * len(hits))


def test_cells_find_nearly_all_in_a_part_of_them() -> None:
    need('faiss')
    vectors = clustered(6000, 40, 32)
    shortlister = FaissShortlister(32, flat_rows=1000)
    for row_ids in torch.arange(6000).split(500):
        shortlister.add(row_ids, vectors[row_ids])

    assert shortlister._trained_on > 2000  # made again as the rows grew
    assert not shortlister.exact
    assert shortlister._probed < shortlister._index.nlist / 2
    assert recall(shortlister, vectors) > 0.95
    # all rows when all are asked for, however few cells are gone through
    assert shortlister.search(vectors[:2], 6000)[1].shape == (2, 6000)


def test_vectors_without_structure_take_all_cells() -> None:
    need('faiss')
    vectors = unit_vectors(3000, 64)
    shortlister = FaissShortlister(64, flat_rows=1000)

    shortlister.add(torch.arange(3000), vectors)

    assert shortlister.exact
    assert recall(shortlister, vectors) == 1


def test_cells_keep_every_vector() -> None:
    need('faiss')
    vectors = clustered(1500, 10, WIDTH)
    shortlister = FaissShortlister(WIDTH, flat_rows=300)
    shortlister.add(torch.arange(1500), vectors)
    before = shortlister.search(vectors, 1)

    shortlister._make_cells()  # from cells, not from the flat index

    assert shortlister._index.ntotal == len(shortlister) == 1500
    after = shortlister.search(vectors, 1)
    assert before[1].tolist() == after[1].tolist()


@pytest.mark.parametrize('options', [dict(flat_rows=0), dict(nprobe=0)])
def test_faiss_refuses_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='must be positive'):
        FaissShortlister(WIDTH, **options)


def test_without_faiss_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'faiss', None)

    with pytest.raises(ImportError, match=r'eaglenet_mm\[search\]'):
        FaissShortlister(WIDTH)
