"""A story set of which a quarter is damaged: checked, trained, tested."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from eaglenet_mm.datasets import read_annotation
from eaglenet_mm.datasets.story import write_story_dataset
from tests.started import run_script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
OPTIONS = (
    'default_hooks.logger.interval=1',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=10',
    'train_dataloader.num_workers=2',
)
DAMAGES = (
    'missing', 'empty', 'truncated', 'text', 'sound', 'folder', 'forbidden'
)  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a story set in it."""
    path = tmp_path_factory.mktemp('damaged')
    write_story_dataset(path / 'data/story', limit=28, workers=1)
    return path


@pytest.fixture(scope='module')
def damaged(folder: Path) -> dict[str, Path]:
    """Damage seven of 28 training videos, and two of the test set."""
    _, records = read_annotation(folder / 'data/story/train.json')
    assert len(records) == 28
    videos = folder / 'data/story/videos'
    paths = {
        damage: videos / records[place]['video']
        for damage, place in zip(DAMAGES, range(1, 28, 4), strict=True)
    }
    content = paths['truncated'].read_bytes()
    for path in paths.values():
        path.unlink()
    paths['empty'].touch()
    paths['truncated'].write_bytes(content[: len(content) * 2 // 3])
    paths['text'].write_text('the quick brown fox ' * 99)
    write_sound(paths['sound'])
    paths['folder'].mkdir()
    paths['forbidden'].write_bytes(content)
    paths['forbidden'].chmod(0)
    _, records = read_annotation(folder / 'data/story/test.json')
    for place in (2, 11):
        (videos / records[place]['video']).unlink()
    return paths


def write_sound(path: Path) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000, layout='mono')
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format='fltp', layout='mono'
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_all_are_found(
    folder: Path, repository: Path, damaged: dict[str, Path]
) -> None:
    command = (
        repository / 'tools/check_videos.py',
        repository / 'configs/eaglenet_story.py',
    )
    shown = run_script(
        *command, '--split', 'train', '--write-clean', folder=folder, code=1
    )
    assert 'ok: 21 of 28' in shown
    report = json.loads((folder / 'data/story/train_videos.json').read_text())
    found = {
        check['video_id']: check['status']
        for check in report['checks']
        if check['status'] != 'ok'
    }
    assert found == {
        path.stem: 'missing' if damage == 'missing' else 'unreadable'
        for damage, path in damaged.items()
    }
    header, records = read_annotation(folder / 'data/story/train_clean.json')
    assert len(records) == 21
    assert sorted(header['missing_videos']) == sorted(found)
    shown = run_script(*command, '--split', 'val', folder=folder)
    assert 'ok: 28 of 28' in shown


def train(folder: Path, repository: Path, *options: str, code: int) -> str:
    return run_script(
        repository / 'tools/train.py',
        repository / 'configs/eaglenet_story.py',
        *('--cfg-options', *OPTIONS, *options),
        folder=folder,
        code=code,
    )


@pytest.mark.nightly
def test_training_stops_at_the_first(
    folder: Path, repository: Path, damaged: dict[str, Path]
) -> None:
    shown = train(folder, repository, code=1)
    line = [x for x in shown.splitlines() if "Error: Video '" in x][-1]
    assert sum(path.name in line for path in damaged.values()) == 1, line


@pytest.mark.nightly
def test_training_and_testing_without_them(
    folder: Path, repository: Path, damaged: dict[str, Path]
) -> None:
    shown = train(
        folder,
        repository,
        'train_dataloader.dataset.dataset.on_missing=skip',
        code=0,
    )
    for path in damaged.values():
        assert shown.count(f"Video '{path.stem}' is skipped") == 1
    assert '7 of 28 videos (train) were skipped' in shown
    (listed,) = folder.glob('work_dirs/*/*/lost_videos_train.json')
    assert sorted(json.loads(listed.read_text())) == sorted(
        path.stem for path in damaged.values()
    )
    (checkpoint,) = folder.glob('work_dirs/*/epoch_2.pth')
    command = (
        repository / 'tools/test.py',
        repository / 'configs/eaglenet_story.py',
        checkpoint,
    )
    assert 'FileNotFoundError' in run_script(*command, folder=folder, code=1)
    shown = run_script(
        *(*command, '--cfg-options'),
        'test_dataloader.dataset.on_missing=skip',
        folder=folder,
    )
    assert 'videos: found 26 of 28' in shown
    assert 'texts: found 104 of 112' in shown
    assert 'NOT the complete set' in shown
    assert '2 of 28 videos (test) were skipped' in shown
    metrics = json.loads(
        (folder / 'work_dirs/eaglenet_story/metrics.json').read_text()
    )['metrics']
    assert metrics['videos_found'] == 26
    assert metrics['videos_expected'] == 28
