"""Exit codes of the tools that read videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets import write_annotation

CONFIG = """
custom_imports = dict(imports=['eaglenet_mm'])
train_dataloader = dict(
    dataset=dict(
        type='TextVideoDataset',
        data_root={root!r},
        ann_file='set.json',
        pipeline=[
            dict(type='OpenVideo'),
            dict(type='SampleFrames', num_frames=2),
            dict(type='DecodeFrames'),
        ],
    )
)
val_dataloader = train_dataloader
"""


def call(repository: Path, tool: str, *options: Any) -> tuple[int, str]:
    command = [sys.executable, repository / 'tools' / tool, *options]
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_annotation(
        tmp_path / 'set.json',
        dict(dataset='made-up', split='train', protocol='all'),
        [dict(video_id='v', video='v.mp4', captions=['one'])],
    )
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=str(tmp_path)))
    return path


@pytest.mark.parametrize('tool', ['check_videos.py', 'cache_frames.py'])
def test_a_missing_video(repository: Path, config: Path, tool: str) -> None:
    code, shown = call(repository, tool, config)
    assert code == 1
    assert "Video 'v': Video file" in shown
    # train and val are one file, read once
    assert shown.count('1 videos of') == 1


@pytest.mark.parametrize('tool', ['check_videos.py', 'cache_frames.py'])
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'has no train_dataloader'),
        ('x = no_such_name', 'NameError'),
        (None, 'A config file was expected'),
    ],
)
def test_what_cannot_be_checked(
    repository: Path,
    tmp_path: Path,
    tool: str,
    content: str | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / 'bad.py').write_text(content)
    code, shown = call(repository, tool, tmp_path / 'bad.py')
    assert code == 2
    assert message in shown


def test_an_annotation_without_its_videos(
    repository: Path, config: Path
) -> None:
    annotation = config.with_name('set.json')
    code, shown = call(repository, 'check_videos.py', annotation)
    assert code == 2
    assert '--videos' in shown
    code, shown = call(
        repository, 'check_videos.py', annotation, '--videos', config.parent
    )
    assert code == 1
    assert 'missing: 1' in shown
