"""The first stage in Milvus, in a file of Milvus Lite."""

from __future__ import annotations

import sys
import time

import pytest
import torch
import torch.nn.functional as F

from eaglenet_mm.search.milvus_shortlister import MilvusShortlister
from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.search.shortlisters import TorchShortlister, build_shortlister
from tests.search.index_rows import make_file, make_index, make_moments

pytest.importorskip('pymilvus')
pytest.importorskip('milvus_lite')


@pytest.fixture
def index(tmp_path):
    index = make_index(tmp_path / 'a.index')
    for number in range(30):
        index.add(make_file(number, duration=number), make_moments(number, 3))
    return index


@pytest.fixture
def address(tmp_path):
    return f'milvus:{tmp_path / "m.db"}'


def queries_of(index, count=4):
    return F.normalize(torch.randn(count, index.vectors().shape[1]), dim=1)


def assert_equal(found, wanted):
    for (scores, ids), (wanted_scores, wanted_ids) in zip(
        found, wanted, strict=True
    ):
        assert torch.equal(scores, wanted_scores)
        assert torch.equal(ids, wanted_ids)


def test_it_follows_the_index(index, address):
    shortlister = build_shortlister(address, index)
    assert isinstance(shortlister, MilvusShortlister)
    queries = queries_of(index)

    def compare():
        exact = TorchShortlister(index)
        for where in (
            None,
            MomentFilter(max_duration=4),
            MomentFilter(min_duration=4),
            MomentFilter('/nothing'),
        ):
            for count in (1, 10, 1000):
                assert_equal(
                    shortlister.search(queries, count, where),
                    exact.search(queries, count, where),
                )

    compare()
    index.remove([make_file(3).path])
    index.add(make_file(5, changed=9), make_moments(99, 2))
    index.add(make_file(40), make_moments(40))
    shortlister.synchronise()
    compare()
    # the next process finds what is there
    shortlister._client.close()
    index.remove([make_file(6).path])
    shortlister = build_shortlister(address, index)
    compare()


def test_an_empty_index(tmp_path, address):
    index = make_index(tmp_path / 'a.index')
    shortlister = build_shortlister(address, index)
    scores, ids = shortlister.search(torch.ones(1, 4), 5)[0]
    assert len(scores) == len(ids) == 0
    index.add(make_file(1), make_moments(1))
    shortlister.synchronise()
    assert shortlister.search(queries_of(index, 1), 5)[0][1].tolist() == (
        index.ids.tolist()
    )


def test_an_index_made_again_in_the_place_of_another(index, address, tmp_path):
    build_shortlister(address, index)._client.close()
    index.close()
    (tmp_path / 'a.index').unlink()
    again = make_index(tmp_path / 'a.index')
    for number in range(40):
        again.add(make_file(number), make_moments(number + 500))
    queries = queries_of(again)
    assert_equal(
        build_shortlister(address, again).search(queries, 10),
        TorchShortlister(again).search(queries, 10),
    )


def test_what_cannot_be_reached(index, monkeypatch):
    begin = time.monotonic()
    monkeypatch.setattr('eaglenet_mm.search.milvus_shortlister._SECONDS', 2.0)
    with pytest.raises(ConnectionError, match=r'127\.0\.0\.1:9'):
        build_shortlister('milvus:http://127.0.0.1:9', index)
    assert time.monotonic() - begin < 20
    with pytest.raises(ValueError, match=r"'a\.txt'"):
        build_shortlister('milvus:a.txt', index)
    monkeypatch.setitem(sys.modules, 'milvus_lite', None)
    with pytest.raises(ImportError, match=r'\[milvus\]'):
        build_shortlister('milvus:a.db', index)
