"""The Python example of docs/search_videos.md runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.apis import VideoIndex
from eaglenet_mm.datasets.story import write_story_dataset
from eaglenet_mm.registry import MODELS

CONFIG = 'configs/eaglenet_story.py'


@pytest.fixture(scope='module')
def text(repository: Path) -> str:
    return (repository / 'docs/search_videos.md').read_text(encoding='utf-8')


@pytest.fixture
def folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the examples name."""
    write_story_dataset(tmp_path / 'story', limit=3, workers=1)
    (tmp_path / 'holidays').mkdir()
    for name, path in zip(
        ('holidays/a.mp4', 'clip.mp4', 'one.mp4', 'two.mp4'),
        sorted((tmp_path / 'story/videos').rglob('*.mp4')),
        strict=False,
    ):
        shutil.copy(path, tmp_path / name)
    cfg = Config.fromfile(repository / CONFIG)
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'best.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_example(text: str, folder: Path, repository: Path) -> None:
    code = re.search(r'```python\n(from eaglenet_mm.*?)```', text, re.S)
    assert code is not None
    example = code[1].replace('eaglenet_msrvtt', str(repository / CONFIG))
    found: dict = {}
    exec(compile(example, 'search_videos.md', 'exec'), found)
    assert len(found['index']) == 1
    assert found['hit'].path == str(folder / 'holidays/a.mp4')
    assert len(VideoIndex.load(folder / 'holidays.index')) == 1
