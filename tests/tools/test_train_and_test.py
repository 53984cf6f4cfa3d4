"""The two tools on a tiny model: options, results, errors."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.utils import UnsafeCheckpointError, load_checkpoint_file

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def read_metrics(folder):
    return json.loads((folder / 'metrics.json').read_text())


def losses(folder):
    """Read (epoch, iteration) -> loss of all runs in a work directory."""
    found = {}
    for file in sorted(folder.rglob('vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['iter']] = record['loss']
    return found


@pytest.fixture
def trained(call_tool, mini_config, tmp_path):
    folder = tmp_path / 'trained'
    call_tool('train.py', mini_config, '--work-dir', folder)
    return folder


def test_train_then_test(trained, call_tool, mini_config, tmp_path):
    (best,) = trained.glob('best_mini_error_*.pth')
    folder = tmp_path / 'tested'
    dump = tmp_path / 'out.pkl'
    call_tool(
        *('test.py', mini_config, best),
        *('--work-dir', folder, '--dump', dump),
    )
    results = read_metrics(folder)
    assert results['checkpoint'] == str(best)
    assert results['config'] == str(mini_config)
    assert 0 < results['metrics']['mini/error'] < 0.6
    with dump.open('rb') as file:  # written a moment ago by ourselves
        assert len(pickle.load(file)) == 8
    untrained = tmp_path / 'untrained'
    call_tool('test.py', mini_config, 'none', '--work-dir', untrained)
    # weight 0.5 instead of 2, on numbers of mean 7 / 16
    error = read_metrics(untrained)['metrics']['mini/error']
    assert error == pytest.approx(1.5 * 7 / 16)


def test_options_of_training(call_tool, mini_config, tmp_path):
    folder = tmp_path / 'work'
    call_tool(
        *('train.py', mini_config, '--work-dir', folder, '--no-validate'),
        *('--amp', '--seed', 11, '--deterministic'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
        'default_hooks.checkpoint.save_best=None',
    )
    cfg = Config.fromfile(folder / 'mini_config.py')
    assert cfg.train_cfg.max_epochs == 1
    assert cfg.val_cfg is None
    assert cfg.randomness == dict(seed=11, deterministic=True)
    expected = (
        'AmpOptimWrapper'
        if torch.cuda.is_available()
        else ('AutocastOptimWrapper')
    )
    assert cfg.optim_wrapper.type == expected
    torch.use_deterministic_algorithms(False)
    call_tool('train.py', mini_config, '--work-dir', folder, '--resume')
    assert len(losses(folder)) == 8


def test_another_width_is_an_error(trained, call_tool, mini_config, tmp_path):
    checkpoint = trained / 'epoch_2.pth'
    wide = ('--cfg-options', 'model.width=3')
    folder = tmp_path / 'wide'
    folder.mkdir()
    (folder / 'metrics.json').write_text('of an earlier test')
    with pytest.raises(ValueError, match=r'linear\.weight') as info:
        call_tool(
            *('test.py', mini_config, checkpoint),
            *('--work-dir', folder, *wide),
        )
    assert str(checkpoint) in str(info.value)
    assert not (folder / 'metrics.json').exists()
    with pytest.raises(ValueError, match='does not fit the model'):
        call_tool(
            *('train.py', mini_config, '--resume', checkpoint),
            *('--work-dir', tmp_path / 'resumed', *wide),
        )


class Executes:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_checkpoint_needs_trust(
    trained, call_tool, mini_config, tmp_path
):
    content = load_checkpoint_file(trained / 'epoch_2.pth')
    content['extra'] = Executes(f'touch {tmp_path / "executed"}')
    path = tmp_path / 'code.pth'
    torch.save(content, path)
    arguments = ('test.py', mini_config, path, '--work-dir', tmp_path / 'a')
    with pytest.raises(UnsafeCheckpointError, match='--trust-checkpoint'):
        call_tool(*arguments)
    assert not (tmp_path / 'executed').exists()
    call_tool(*arguments, '--trust-checkpoint')
    assert (tmp_path / 'executed').exists()


def test_missing_files(call_tool, mini_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no_config\.py'):
        call_tool('train.py', tmp_path / 'no_config.py')
    with pytest.raises(FileNotFoundError, match=r'no_checkpoint\.pth'):
        call_tool('test.py', mini_config, tmp_path / 'no_checkpoint.pth')


def test_mistyped_option(call_tool, mini_config, tmp_path):
    with pytest.raises(KeyError, match=r"did you mean 'model\.width'"):
        call_tool(
            *('train.py', mini_config, '--work-dir', tmp_path),
            *('--cfg-options', 'modl.width=3'),
        )


@pytest.mark.slow
def test_killed_training_resumes_with_the_same_losses(
    environment, call_tool, mini_config, tmp_path, trained
):
    """SIGKILL in the second epoch; MMEngine's own checkpoint is resumed."""
    folder, waiting = tmp_path / 'killed', tmp_path / 'waiting'
    config = tmp_path / 'mini_config.py'
    hook = dict(type='WaitForKill', iteration=6, file=str(waiting))
    config.write_text(
        f'_base_ = {str(mini_config)!r}\ncustom_hooks = [{hook}]\n'
    )
    command = [sys.executable, TOOLS / 'train.py', config]
    command += ['--work-dir', folder]
    with subprocess.Popen(command, env=environment) as process:
        for _ in range(1200):
            if waiting.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert waiting.exists()
    assert not (folder / 'epoch_2.pth').exists()
    call_tool(
        *('train.py', mini_config, '--work-dir', folder, '--resume'),
    )
    assert losses(folder) == losses(trained)
    ours = load_checkpoint_file(folder / 'epoch_2.pth')
    whole = load_checkpoint_file(trained / 'epoch_2.pth')
    torch.testing.assert_close(
        ours['state_dict'], whole['state_dict'], rtol=0, atol=0
    )


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(300)
def test_two_processes_on_cpu(start_tool, mini_config, trained, tmp_path):
    folder = tmp_path / 'two'
    start_tool(
        *('bash', TOOLS / 'dist_train.sh', mini_config, 2),
        *('--work-dir', folder),
        *('--cfg-options', 'train_dataloader.batch_size=1'),
    )
    checkpoint = trained / 'epoch_2.pth'
    torch.testing.assert_close(
        load_checkpoint_file(folder / 'epoch_2.pth')['state_dict'],
        load_checkpoint_file(checkpoint)['state_dict'],
    )
    start_tool(
        *('bash', TOOLS / 'dist_test.sh', mini_config, checkpoint, 2),
        *('--work-dir', tmp_path / 'test'),
    )
    (one,) = trained.glob('2*/vis_data/scalars.json')
    last = json.loads(one.read_text().splitlines()[-1])
    metrics = read_metrics(tmp_path / 'test')['metrics']
    assert metrics['mini/error'] == pytest.approx(last['mini/error'])


@pytest.mark.parametrize(
    'name',
    ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'],
)
def test_scripts_say_how_they_are_called(name):
    result = subprocess.run(
        ['bash', TOOLS / name], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert f'bash tools/{name} ' in result.stderr


@pytest.mark.parametrize('path', sorted(TOOLS.glob('*.sh')), ids=str)
def test_scripts_are_valid(path):
    subprocess.run(['bash', '-n', path], check=True)
    if path.name != 'environment.sh':  # that one is sourced
        assert 'set -euo pipefail' in path.read_text()
        assert os.access(path, os.X_OK)
