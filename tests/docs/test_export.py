"""The example of docs/export.md gives the scores of the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.export import export_retriever
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.registry import MODELS
from tests.models.every_head import registered_heads
from tests.models.tiny import tiny_inputs, tiny_retriever

for package in ('onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package, reason=f'needs {package}')


@pytest.fixture(scope='module')
def page(repository: Path) -> str:
    return (repository / 'docs/export.md').read_text(encoding='utf-8')


@pytest.mark.nightly
def test_the_example(page: str, tmp_path: Path) -> None:
    match = re.search(r'<!-- example -->\n```python\n(.*?)```', page, re.S)
    assert match is not None
    assert len(match[1].splitlines()) <= 12
    model = tiny_retriever(dict(type='XPoolHead', embed_dim=16)).eval()
    export_retriever(model, tmp_path)
    inputs = tiny_inputs(4)
    names: dict[str, Any] = {k: x.numpy() for k, x in inputs.items()}
    names['folder'] = tmp_path
    exec(match[1], names)
    with torch.no_grad():
        wanted = model.head(*model(inputs, mode='tensor'))
    torch.testing.assert_close(names['scores'], wanted, rtol=0, atol=1e-5)


def test_the_table_has_every_head(page: str) -> None:
    table = page.split('## What can be exported')[1].split('## ')[0]
    heads = set(re.findall(r'`(\w+Head)[`(]', table))
    assert heads == registered_heads()
    assert all(issubclass(MODELS.get(x), BasePairHead) for x in heads)
