"""Exit codes of the tools that read videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture
def call(call_tool: Callable, capfd: pytest.CaptureFixture) -> Callable:
    """Run a tool in this process; give its exit code and what it showed."""

    def run(tool: str, *options: object) -> tuple[int, str]:
        code = 0
        try:
            call_tool(tool, *options)
        except SystemExit as end:
            code = end.code
        return code, ''.join(capfd.readouterr())

    return run


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
def test_a_missing_video(call: Callable, config: Path, tool: str) -> None:
    code, shown = call(tool, config)
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
    call: Callable,
    tmp_path: Path,
    tool: str,
    content: str | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / 'bad.py').write_text(content)
    code, shown = call(tool, tmp_path / 'bad.py')
    assert code == 2
    assert message in shown


def test_an_annotation_without_its_videos(
    call: Callable, config: Path
) -> None:
    annotation = config.with_name('set.json')
    code, shown = call('check_videos.py', annotation)
    assert code == 2
    assert '--videos' in shown
    code, shown = call(
        'check_videos.py', annotation, '--videos', config.parent
    )
    assert code == 1
    assert 'missing: 1' in shown
