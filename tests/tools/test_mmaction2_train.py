"""Our configs in the train script of mmaction2, on a few story videos."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture
def story_folder(start_tool, repository, tmp_path, monkeypatch):
    """Work in a folder that holds a small story set as ``data/story``."""
    monkeypatch.chdir(tmp_path)
    script = repository / 'tools' / 'dataset_converters' / 'story.py'
    start_tool(
        *(sys.executable, script, '--out', 'data/story'),
        *('--limit', 4, '--workers', 1),
    )
    return tmp_path


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_story_config_trains_there(start_tool, repository, story_folder):
    script = Path(find_spec('mmaction').origin).parent / '.mim/tools/train.py'
    output = start_tool(
        *(sys.executable, script, repository / 'configs/eaglenet_story.py'),
        *('--work-dir', story_folder / 'work', '--cfg-options'),
        *('train_cfg.max_epochs=1', 'train_dataloader.batch_size=4'),
    )
    assert 't2v/R1' in output
    assert list((story_folder / 'work').glob('epoch_1.pth'))
