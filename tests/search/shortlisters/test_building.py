"""Names and configs of first stages."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from eaglenet_mm.search.shortlisters import (
    FaissShortlister,
    MilvusShortlister,
    TorchShortlister,
    build_shortlister,
)
from eaglenet_mm.search.shortlisters.building import MAX_EXACT_NUMBERS
from tests.search.shortlisters.conftest import need


def build(name: Any, num_rows: int = 10, **options: Any) -> Any:
    return build_shortlister(name, embed_dim=8, num_rows=num_rows, **options)


def test_auto_chooses_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(build('auto'), TorchShortlister)
    monkeypatch.setattr(
        TorchShortlister, '_reserve', lambda self, num_rows: None
    )
    limit = MAX_EXACT_NUMBERS // 8
    assert isinstance(build('auto', limit), TorchShortlister)
    need('faiss')
    assert isinstance(build('auto', limit + 1), FaissShortlister)


def test_a_config_may_hold_the_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reserved: list[int] = []
    monkeypatch.setattr(
        TorchShortlister,
        '_reserve',
        lambda self, num_rows: reserved.append(num_rows),
    )
    path = 'eaglenet_mm.search.shortlisters.TorchShortlister'
    for kind in ('TorchShortlister', TorchShortlister, path):
        assert isinstance(build(dict(type=kind), 7), TorchShortlister)
    assert reserved == [7, 7, 7]


def test_auto_does_without_faiss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(
        TorchShortlister, '_reserve', lambda self, num_rows: None
    )

    built = build('auto', MAX_EXACT_NUMBERS)  # times the width

    assert isinstance(built, TorchShortlister)


def test_names() -> None:
    assert isinstance(build('torch'), TorchShortlister)
    assert len(build('torch', 1000)._ids) >= 1000  # room for all
    need('faiss')
    assert isinstance(build('faiss'), FaissShortlister)
    need('milvus')
    built = build('milvus', model='abc')
    assert isinstance(built, MilvusShortlister)
    assert 'abc' in built.collection
    built.close()


def test_configs() -> None:
    config = dict(type='eaglenet_mm.TorchShortlister', dtype='float16')

    built = build(config)

    assert built._matrix.dtype == torch.float16
    assert built.embed_dim == 8
    assert 'embed_dim' not in config


@pytest.mark.parametrize('name', ['annoy', 'torch:http://host', 'milvus:', ''])
def test_refuses_other_names(name: str) -> None:
    with pytest.raises(ValueError, match='The first stage must be'):
        build(name)
