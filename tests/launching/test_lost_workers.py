"""A worker that dies leaves the name of what it read."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.dataset import pseudo_collate
from torch.utils.data import ConcatDataset, DataLoader

from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.launching.lost_workers import name_lost_workers
from tests.some_cases import mostly_nightly


def die_of_b(results: dict[str, Any]) -> dict[str, Any]:
    """Stand for a decoder that brings its process down."""
    if results['video_id'] == 'b':
        os.kill(os.getpid(), signal.SIGKILL)
    return dict(video_id=results['video_id'])


@pytest.fixture
def dataset(tmp_path: Path) -> TextVideoDataset:
    write_annotation(
        tmp_path / 'test.json',
        dict(dataset='made-up', split='test', protocol='all'),
        [
            dict(video_id=name, video=f'{name}.mp4', captions=['one'])
            for name in 'abc'
        ],
    )
    return TextVideoDataset(
        str(tmp_path / 'test.json'),
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[die_of_b],
    )


def runner_with(loader: Any) -> SimpleNamespace:
    return SimpleNamespace(
        _train_loop=SimpleNamespace(dataloader=loader),
        _val_loop=None,
        _test_loop=dict(type='RetrievalTestLoop'),
    )


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: ConcatDataset([x])])
@pytest.mark.parametrize('context', mostly_nightly(['fork', 'spawn']))
def test_the_video_is_named(dataset, wrap, context) -> None:
    loader = DataLoader(
        wrap(dataset),
        num_workers=2,
        collate_fn=pseudo_collate,
        multiprocessing_context=context,
    )
    with (
        pytest.raises(
            RuntimeError,
            match=r"DataLoader worker .*reading: 'b' \(.*b\.mp4\)\. Check",
        ),
        name_lost_workers(runner_with(loader)),
    ):
        list(loader)


@pytest.mark.parametrize(
    'message', ['something else', 'DataLoader worker (pid 1) is killed']
)
def test_other_errors_stay_as_they_are(dataset, message) -> None:
    error = RuntimeError(message)
    with (
        pytest.raises(RuntimeError) as caught,
        name_lost_workers(runner_with(DataLoader(dataset))),
    ):
        raise error
    assert caught.value is error
