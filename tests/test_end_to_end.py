"""Training, resuming, two processes and testing with the story config."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eaglenet_mm.datasets.story import write_story_dataset
from eaglenet_mm.utils import load_checkpoint_file
from tests.started import Script, run_script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TIMES = {'time', 'data_time', 'memory'}
OPTIONS = (
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work in a folder with a small story set as ``data/story``."""
    path = tmp_path_factory.mktemp('story')
    write_story_dataset(path / 'data/story', limit=16, workers=1)
    return path


def train(folder: Path, repository: Path, name: str) -> Path:
    """Train in one process; return the work folder."""
    run_script(*train_command(repository, name), folder=folder)
    return folder / name


def train_command(
    repository: Path, name: str, *options: str, batch_size: int = 8
) -> list[Any]:
    return [
        repository / 'tools/train.py',
        repository / 'configs/eaglenet_story.py',
        *('--work-dir', name, *options, '--cfg-options', *OPTIONS),
        f'train_dataloader.batch_size={batch_size}',
    ]


def run_two(folder: Path, script: Path, *arguments: Any) -> None:
    """Run a tool in two processes, as ``torchrun`` does."""
    with socket.create_server(('localhost', 0)) as server:
        port = server.getsockname()[1]
    processes = [
        Script(
            *(script, '--launcher', 'pytorch', *arguments),
            folder=folder,
            output=folder / f'output{rank}',
            **dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2'),
            **dict(MASTER_ADDR='localhost', MASTER_PORT=str(port)),
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            assert process.wait() == 0, process.output.read_text()
    finally:
        for process in processes:
            process.kill()


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Read what was logged in each iteration, later runs last."""
    rows = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss_match' in row:
                rows[row['iter']] = {
                    key: value
                    for key, value in row.items()
                    if 'loss' in key or key == 'grad_norm'
                }
    return rows


@pytest.fixture(scope='module')
def trained(folder: Path, repository: Path) -> Path:
    return train(folder, repository, 'whole')


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / 'metrics.json').read_text())['metrics']


def last_checkpoint(folder: Path) -> Path:
    return folder / 'epoch_2.pth'


def test_losses_fall_and_have_every_term(trained: Path) -> None:
    rows = losses(trained)
    assert list(rows) == [1, 2, 3, 4]
    assert {
        'loss_match',
        'loss_support',
        'loss_energy',
        'loss_energy_support',
    } <= set(rows[1])
    # energies, trained against each other, may rise
    for term in ('loss_match', 'loss_support'):
        assert rows[4][term] < rows[1][term]


@pytest.mark.nightly
def test_killed_training_goes_on_as_it_was(
    trained: Path, folder: Path, repository: Path
) -> None:
    """SIGKILL in the second epoch; replay buffer and noise included."""
    name = 'killed'
    script = Script(
        *train_command(repository, name),
        folder=folder,
        output=folder / 'killed_output',
    )
    deadline = time.monotonic() + 120
    while 3 not in losses(folder / name):
        assert time.monotonic() < deadline
        assert script.process.is_alive() or 3 in losses(folder / name)
        time.sleep(0.01)
    script.kill()
    assert (folder / name / 'epoch_1.pth').is_file()
    (folder / name / 'epoch_2.pth').unlink(missing_ok=True)
    (folder / name / 'last_checkpoint').write_text(
        str(folder / name / 'epoch_1.pth')
    )
    command = train_command(repository, name, '--resume')
    output = run_script(*command, folder=folder)
    assert 'resumed epoch: 1, iter: 2' in output
    expected, got = losses(trained), losses(folder / name)
    assert got == expected


def test_two_processes_train_and_test_as_one(
    trained: Path, folder: Path, repository: Path
) -> None:
    """Same batches, same noise: same losses but for rounding, same metrics."""
    run_two(folder, *train_command(repository, 'two', batch_size=4))
    expected, got = losses(trained), losses(folder / 'two')
    assert set(got) == set(expected)
    for number, row in expected.items():
        for key, value in row.items():
            assert got[number][key] == pytest.approx(
                value, rel=1e-5, abs=1e-6
            ), key
    checkpoint = last_checkpoint(folder / 'two')
    config = repository / 'configs/eaglenet_story.py'
    options = ('--cfg-options', 'test_dataloader.num_workers=0')
    command = repository / 'tools/test.py', config, checkpoint
    run_script(
        *(*command, '--work-dir', 'test_one', '--dump', 'one.pkl', *options),
        'test_dataloader.batch_size=5',
        folder=folder,
    )
    run_two(
        folder,
        *(*command, '--work-dir', 'test_two', '--dump', 'two.pkl', *options),
    )
    assert metrics(folder / 'test_one') == metrics(folder / 'test_two')
    one, two = (read_rows(folder / f'{name}.pkl') for name in ('one', 'two'))
    assert list(one) == list(two)
    for index, scores in one.items():
        np.testing.assert_array_equal(scores, two[index])


def read_rows(path: Path) -> dict[int, np.ndarray]:
    rows = pickle.loads(path.read_bytes())
    return {
        row['caption_index']: np.asarray(row['scores'])
        for row in sorted(rows, key=lambda row: row['caption_index'])
    }


@pytest.mark.nightly  # tests/tools/test_index_and_search.py goes further
def test_index_and_search(
    trained: Path, folder: Path, repository: Path
) -> None:
    tools = repository / 'tools'
    told = run_script(
        tools / 'index.py',
        folder / 'data/story/videos',
        '--config',
        repository / 'configs/eaglenet_story.py',
        '--checkpoint',
        last_checkpoint(trained),
        '--out',
        'videos.index',
        folder=folder,
    )
    count = len(list((folder / 'data/story/videos').iterdir()))
    assert f'{count} videos can be searched' in told
    query = 'a red square moves left'
    told = run_script(
        *(tools / 'search.py', 'videos.index', query, '-k', 3, '--json'),
        folder=folder,
    )
    hits = json.loads(told[told.index('[\n {') :])
    assert [hit['rank'] for hit in hits] == [1, 2, 3]
    for hit in hits:
        assert Path(hit['path']).is_file()
        assert hit['start'] <= hit['best_time'] <= hit['end']


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.write_bytes(b'no video'), 'cannot'),
        pytest.param(Path.unlink, 'does not exist', marks=pytest.mark.nightly),
    ],
    ids=['damaged', 'lost'],
)
def test_a_broken_video_is_named(
    trained: Path, folder: Path, repository: Path, tmp_path, damage, message
) -> None:
    """Neither trained on as zeros nor left out in silence."""
    shutil.copytree(folder / 'data', tmp_path / 'data')
    data = json.loads((tmp_path / 'data/story/test.json').read_text())
    video = data['data_list'][3]['video']
    damage(tmp_path / 'data/story/videos' / video)
    told = run_script(
        repository / 'tools/test.py',
        repository / 'configs/eaglenet_story.py',
        last_checkpoint(trained),
        *('--work-dir', 'work', '--cfg-options'),
        'test_dataloader.num_workers=0',
        folder=tmp_path,
        code=1,
    )
    assert video in told
    assert message in told
    assert not (tmp_path / 'work/metrics.json').exists()


def strip(states: dict[str, Any]) -> dict[str, Any]:
    """Names without the wrapper's prefix."""
    return {key.removeprefix('module.'): x for key, x in states.items()}


@pytest.mark.nightly
def test_mixed_precision_and_moving_average(
    folder: Path, repository: Path
) -> None:
    """``--amp`` and MMEngine's EMAHook, and a test of what they saved."""
    config = folder / 'ema.py'
    config.write_text(
        f"_base_ = ['{repository}/configs/eaglenet_story.py']\n"
        "custom_hooks = [dict(type='EMAHook'), dict(type='DatasetEpochHook')]"
    )
    command = train_command(repository, 'ema', '--amp')
    command[1] = config
    output = run_script(*command, folder=folder)
    assert 'bfloat16' in output
    rows = losses(folder / 'ema')
    # energies, trained against each other, may rise
    for term in ('loss_match', 'loss_support'):
        assert rows[4][term] < rows[1][term]
    checkpoint = last_checkpoint(folder / 'ema')
    saved = load_checkpoint_file(checkpoint)
    raw = saved['ema_state_dict']  # MMEngine saves the averages as weights
    name = 'video_encoder.tower.proj'
    averaged, own = saved['state_dict'][name], raw[f'module.{name}']
    assert not torch.equal(averaged, own)
    # what the sampler and the noise go on from is that of the last step
    for states in (saved['state_dict'], strip(raw)):
        assert int(states['head.random_key'][1]) == 4
        assert int(states['head.loss_energy.sampler.replay_fill']) == 64
    trained_metrics = folder / 'ema_test'
    run_script(
        *(repository / 'tools/test.py', config, checkpoint),
        *('--work-dir', trained_metrics, '--cfg-options'),
        'test_dataloader.num_workers=0',
        'test_cfg.fp16=True',
        folder=folder,
    )
    assert metrics(trained_metrics)['t2v/R10'] > 0
