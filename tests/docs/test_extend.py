"""The example of docs/extend.md is a head like any other."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from eaglenet_mm.models.heads import BasePairHead, base_pair_head
from eaglenet_mm.registry import MODELS
from tests.models.every_head import features
from tests.models.tiny import FRAMES


@pytest.fixture(scope='module')
def example(repository: Path) -> str:
    text = (repository / 'docs/extend.md').read_text(encoding='utf-8')
    match = re.search(
        r'<!-- file: soft_pooling.py -->\n```python\n(.*?)```', text, re.S
    )
    assert match is not None
    return match[1]


@pytest.fixture
def head(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BasePairHead:
    (tmp_path / 'soft_pooling.py').write_text(example, encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'soft_pooling', raising=False)
    try:
        importlib.import_module('soft_pooling')
        torch.manual_seed(0)
        return MODELS.build(
            dict(
                type='SoftPoolingHead',
                num_frames=FRAMES,
                loss_match=dict(type='InfoNCELoss'),
            )
        ).double()
    finally:
        MODELS.module_dict.pop('SoftPoolingHead', None)


def test_it_is_short(example: str) -> None:
    assert len(example.splitlines()) < 60


def test_it_scores_and_trains(
    head: BasePairHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, video = features(6, 4)
    scores = head(text, video)
    assert scores.shape == (6, 4)
    columns = torch.tensor([2, 0, 3])
    part = head(text, video.index_select(columns))
    torch.testing.assert_close(part, scores[:, columns])
    monkeypatch.setitem(
        base_pair_head.EVALUATION_BYTES, 'cpu', head.bytes_per_pair(False)
    )
    chunked = head.score_chunked(
        head.prepare_text(text), head.prepare_video(video)
    )
    torch.testing.assert_close(chunked, scores)
    before = float(head.loss(*features(4, 4))['loss_match'])
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        head.loss(*features(4, 4))['loss_match'].backward()
        optimizer.step()
    assert float(head.loss(*features(4, 4))['loss_match']) < before


def test_masked_frames_have_no_weight(head: BasePairHead) -> None:
    text, video = features(3, 4)
    expected = head(text, video)
    video.frames[~video.frame_mask] = 99.0
    torch.testing.assert_close(head(text, video), expected)
