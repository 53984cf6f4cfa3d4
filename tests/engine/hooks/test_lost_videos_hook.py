from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from eaglenet_mm.datasets import (
    CaptionExpansion,
    TextVideoDataset,
    write_annotation,
)
from eaglenet_mm.engine.hooks import LostVideosHook
from tests.engine.loops.tiny_retrieval import TinyVideos


@pytest.fixture
def dataset(tmp_path: Path) -> TextVideoDataset:
    write_annotation(
        tmp_path / 'train.json',
        dict(dataset='made-up', split='train', protocol='all'),
        [
            dict(video_id=f'v{place}', video=f'{place}.mp4', captions=['x'])
            for place in range(20)
        ],
    )
    return TextVideoDataset(
        str(tmp_path / 'train.json'),
        data_prefix=dict(video='videos'),
        on_missing='skip',
    )


@pytest.fixture
def runner(tmp_path: Path, dataset: TextVideoDataset) -> SimpleNamespace:
    lines: list[str] = []
    loader = SimpleNamespace(dataset=CaptionExpansion(dataset))
    return SimpleNamespace(
        train_dataloader=loader,
        val_dataloader=SimpleNamespace(dataset=TinyVideos()),
        test_dataloader=loader,
        log_dir=str(tmp_path),
        logger=SimpleNamespace(warning=lines.append),
        lines=lines,
    )


def test_nothing_is_said_without_losses(runner, tmp_path) -> None:
    hook = LostVideosHook()
    hook.after_train(runner)
    hook.after_val(runner)
    hook.after_test(runner)
    assert runner.lines == []
    assert not list(tmp_path.glob('lost*'))


@pytest.mark.parametrize('stage', ['train', 'test'])
def test_losses_are_summed_up(runner, dataset, tmp_path, stage) -> None:
    for index in (3, 7, 3, 11):
        dataset.lost_videos.add(index)
    getattr(LostVideosHook(num_named=2), f'after_{stage}')(runner)
    (line,) = runner.lines
    assert line.startswith(
        f"3 of 20 videos ({stage}) were skipped: 'v3' (videos/3.mp4), "
        "'v7' (videos/7.mp4), ...."
    )
    written = json.loads((tmp_path / f'lost_videos_{stage}.json').read_text())
    assert written == {
        'v3': 'videos/3.mp4',
        'v7': 'videos/7.mp4',
        'v11': 'videos/11.mp4',
    }
