"""A tiny model, and a folder of generated videos."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.registry import MODELS


@pytest.fixture(scope='session')
def videos(toy: Path) -> list[str]:
    content = json.loads((toy / 'test.json').read_text())
    return [
        str(toy / 'videos' / record['video'])
        for record in content['data_list']
    ]


@pytest.fixture
def cfg(repository: Path, toy: Path) -> Config:
    cfg = Config.fromfile(repository / 'configs/eaglenet_toy.py')
    cfg.test_dataloader.dataset.data_root = f'{toy}/'
    return cfg


@pytest.fixture(scope='session')
def weights(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    cfg = Config.fromfile(repository / 'configs/eaglenet_toy.py')
    torch.manual_seed(1)
    model: Any = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='session')
def loaded(repository: Path, toy: Path, weights: str) -> RetrievalInferencer:
    cfg = Config.fromfile(repository / 'configs/eaglenet_toy.py')
    cfg.test_dataloader.dataset.data_root = f'{toy}/'
    return RetrievalInferencer(cfg, weights, num_workers=0)


@pytest.fixture
def inferencer(loaded: RetrievalInferencer) -> RetrievalInferencer:
    """One with an index of its own; the model is shared."""
    return copy.copy(loaded)
