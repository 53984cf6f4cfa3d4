"""Searching a test set, on a tiny model and generated videos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.apis import load_retriever, search_videos
from eaglenet_mm.datasets.toy_writer import write_toy_dataset
from eaglenet_mm.registry import MODELS


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'toy'
    write_toy_dataset(folder, limit=3, renderings=1, workers=1)
    return folder


@pytest.fixture
def cfg(repository: Path, data: Path) -> Config:
    cfg = Config.fromfile(repository / 'configs/eaglenet_toy.py')
    cfg.test_dataloader.dataset.data_root = f'{data}/'
    return cfg


@pytest.fixture
def checkpoint(cfg: Config, tmp_path: Path) -> str:
    model = MODELS.build(cfg.model)
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def test_the_best_come_first(cfg: Config, checkpoint: str) -> None:
    hits = search_videos(cfg, checkpoint, 'a red square moves left', top_k=9)
    assert len(hits) == 3
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.video_id for hit in hits}) == 3
    for hit in hits:
        assert Path(hit.video).is_file()
        assert hit.captions
    best = search_videos(cfg, checkpoint, 'a red square moves left', top_k=1)
    assert best == hits[:1]


def test_scores_are_those_of_the_model(cfg: Config, checkpoint: str) -> None:
    """The query is one caption; its video is scored as in an evaluation."""
    hits = search_videos(cfg, checkpoint, 'a blue ring grows', top_k=3)
    again = search_videos(cfg, checkpoint, 'A BLUE ring, grows.', top_k=3)
    assert hits == again
    other = search_videos(cfg, checkpoint, 'a yellow cross', top_k=3)
    assert [hit.score for hit in other] != [hit.score for hit in hits]


def test_pretrained_weights_are_not_read_twice(
    cfg: Config, checkpoint: str
) -> None:
    cfg.model.text_encoder.pretrained = 'no/such/file.pt'
    assert not load_retriever(cfg, checkpoint).training


@pytest.mark.parametrize(
    ('query', 'top_k', 'message'),
    [(' ', 5, 'The query is empty'), ('a ring', 0, 'at least 1, but is 0')],
)
def test_arguments_are_checked(
    cfg: Config, checkpoint: str, query: str, top_k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        search_videos(cfg, checkpoint, query, top_k)


def test_a_checkpoint_of_another_width(cfg: Config, checkpoint: str) -> None:
    cfg.model.head.num_candidates = 7
    with pytest.raises(ValueError, match='does not fit the model'):
        search_videos(cfg, checkpoint, 'a ring')


def test_a_pipeline_that_does_not_tokenise(
    cfg: Config, checkpoint: str
) -> None:
    cfg.test_dataloader.dataset.pipeline = [
        transform
        for transform in cfg.pipeline
        if transform['type'] != 'TokenizeCaptions'
    ]
    with pytest.raises(ValueError, match='has no TokenizeCaptions'):
        search_videos(cfg, checkpoint, 'a ring')
