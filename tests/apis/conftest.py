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
def videos(story: Path) -> list[str]:
    content = json.loads((story / 'test.json').read_text())
    return [
        str(story / 'videos' / record['video'])
        for record in content['data_list']
    ]


@pytest.fixture
def cfg(repository: Path, story: Path) -> Config:
    cfg = Config.fromfile(repository / 'configs/eaglenet_story.py')
    cfg.test_dataloader.dataset.data_root = f'{story}/'
    return cfg


@pytest.fixture(scope='session')
def weights(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    cfg = Config.fromfile(repository / 'configs/eaglenet_story.py')
    torch.manual_seed(1)
    model: Any = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='session')
def loaded(repository: Path, story: Path, weights: str) -> RetrievalInferencer:
    cfg = Config.fromfile(repository / 'configs/eaglenet_story.py')
    cfg.test_dataloader.dataset.data_root = f'{story}/'
    return RetrievalInferencer(cfg, weights, num_workers=0)


@pytest.fixture
def inferencer(loaded: RetrievalInferencer) -> RetrievalInferencer:
    """One with an index of its own; the model is shared."""
    return copy.copy(loaded)
