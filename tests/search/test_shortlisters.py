"""First stages against a plain product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.search.shortlisters import TorchShortlister, build_shortlister
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_rows import make_file, make_index, make_moments


def fill(vectors: Tensor, index: VideoIndex | None = None) -> VideoIndex:
    """One file a vector."""
    index = index or make_index()
    begin = len(index.files)
    rows = []
    for number, vector in enumerate(vectors, start=begin):
        moments = make_moments(number)
        moments.vectors = vector[None]
        rows.append((make_file(number, duration=number % 7), moments))
    index.add_many(rows)
    return index


def expected(
    index: VideoIndex, query: Tensor, count: int, ids: Tensor
) -> tuple[list[float], list[int]]:
    scores = (index.vectors(ids).double() @ query.double()).float()
    order = scores.argsort(descending=True, stable=True)[:count]
    return scores[order].tolist(), ids[order].tolist()


def crowded(kind: str, rows: int) -> Tensor:
    """Vectors that float16 can hardly tell apart, or not at all."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(rows, 8, generator=generator)
    if kind == 'random':
        return F.normalize(noise, dim=-1)
    centre = torch.ones(8)
    if kind == 'near':
        return F.normalize(centre + 1e-4 * noise, dim=-1)
    copies = F.normalize(noise[:5], dim=-1)
    return copies.repeat(rows // 5 + 1, 1)[:rows]


@pytest.mark.parametrize('kind', ['random', 'near', 'copies'])
@pytest.mark.parametrize('count', [1, 7, 500])
def test_the_true_highest(kind: str, count: int) -> None:
    index = fill(crowded(kind, 300))
    shortlister = TorchShortlister(index)
    queries = F.normalize(torch.randn(4, 8), dim=-1)
    for where in (
        None,
        MomentFilter(min_duration=6),
        MomentFilter(max_duration=4),
    ):
        found = shortlister.search(queries, count, where)
        for query, (scores, ids) in zip(queries, found, strict=True):
            allowed = index.select(where)
            wanted = expected(index, query, count, allowed)
            assert ids.tolist() == wanted[1]
            assert scores.tolist() == pytest.approx(wanted[0])


def test_changes_are_taken_up() -> None:
    index = fill(crowded('random', 20))
    shortlister = TorchShortlister(index)
    query = F.normalize(torch.randn(1, 8), dim=-1)
    for change in ('add', 'remove', 'both'):
        if change != 'add':
            index.remove(
                [f'/videos/{n}.mp4' for n in range(3, 9)][: 2 + len(change)]
            )
        if change != 'remove':
            fill(crowded('random', 30), index)
        index.refresh()
        shortlister.synchronise()
        ((_, ids),) = shortlister.search(query, 99)
        assert ids.tolist() == expected(index, query[0], 99, index.ids)[1]
        if change == 'remove':
            break


def test_nothing_to_search() -> None:
    index = make_index()
    shortlister = TorchShortlister(index)
    ((scores, ids),) = shortlister.search(torch.randn(1, 8), 5)
    assert (scores.shape, ids.shape) == ((0,), (0,))
    fill(crowded('random', 4), index)
    shortlister.synchronise()
    where = MomentFilter(path='/elsewhere')
    ((scores, ids),) = shortlister.search(torch.randn(1, 8), 5, where)
    assert (scores.shape, ids.shape) == ((0,), (0,))


@pytest.mark.parametrize(
    'name', ['fais', 'torch:here', 'milvus', '', 'lance:there']
)
def test_names_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"'auto', 'torch', 'lance' or"):
        build_shortlister(name, make_index())


def test_names_and_configs() -> None:
    index: Any = make_index()
    for given in ('auto', 'torch', dict(type='TorchShortlister')):
        assert isinstance(build_shortlister(given, index), TorchShortlister)
