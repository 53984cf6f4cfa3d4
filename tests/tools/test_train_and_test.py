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

from eaglenet_mm.config import open_config
from eaglenet_mm.engine.hooks import StartWeightsHook, StrictResumeHook
from eaglenet_mm.launching import build_runner
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


@pytest.mark.nightly
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


@pytest.mark.nightly
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


@pytest.mark.parametrize(
    ('name', 'given'),
    [('train', ['config.py']), ('test', ['config.py', 'checkpoint.pth'])],
)
def test_scripts_start_a_tool_in_each_process(tmp_path, name, given):
    """With a Python that only tells its arguments."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    told = subprocess.run(
        ['bash', TOOLS / f'dist_{name}.sh', *given, '2', '--work-dir', 'x'],
        env={'PATH': os.environ['PATH'], 'PYTHON': str(python)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.split() == [
        *('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
        *(str(TOOLS / f'{name}.py'), *given),
        *('--launcher', 'pytorch', '--work-dir', 'x'),
    ]


@pytest.mark.parametrize('path', sorted(TOOLS.glob('*.sh')), ids=str)
def test_scripts_are_valid(path):
    subprocess.run(['bash', '-n', path], check=True)
    if path.name != 'environment.sh':  # that one is sourced
        assert 'set -euo pipefail' in path.read_text()
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize(
    ('option', 'told'),
    [('train_cgf.max_epochs=1', 'did you mean'), ('model.type=Mini', 'Mini')],
)
def test_a_wrong_config_ends_with_the_message_alone(
    environment, mini_config, tmp_path, option, told
):
    result = subprocess.run(
        [
            *(sys.executable, TOOLS / 'train.py', mini_config),
            *('--work-dir', tmp_path, '--cfg-options', option),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith('train.py: KeyError: ')
    assert told in last
    assert 'Traceback' not in result.stderr


def test_every_run_has_the_checks(mini_config, tmp_path, monkeypatch):
    """Also of a config that does not inherit ours."""
    monkeypatch.syspath_prepend(str(mini_config.parent))
    cfg = open_config(mini_config, dict(work_dir=str(tmp_path)))
    hooks = {type(hook) for hook in build_runner(cfg, strict=False).hooks}
    assert {StartWeightsHook, StrictResumeHook} <= hooks


PURE = """
from mini_parts import MiniDataset, MiniMetric, MiniModel
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.visualization import Visualizer
from torch.optim import Adam

model = dict(type=MiniModel)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type=MiniDataset),
    sampler=dict(type=DefaultSampler, shuffle=True),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type=MiniDataset),
    sampler=dict(type=DefaultSampler, shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type=MiniMetric)
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=Adam, lr=0.1))
"""


def test_a_pure_python_config(call_tool, tmp_path):
    """Its types are classes, and what it saves names them by their path."""
    config, folder = tmp_path / 'pure.py', tmp_path / 'work'
    config.write_text(PURE)
    call_tool(
        *('train.py', config, '--amp', '--work-dir', folder),
        *('--cfg-options', 'batch_size=4'),
    )
    saved = Config.fromfile(folder / 'pure.py')
    assert saved.train_dataloader.batch_size == 4
    assert saved.optim_wrapper.type in (
        *('AutocastOptimWrapper', 'AmpOptimWrapper'),
    )
    errors = []
    for given in (config, folder / 'pure.py'):
        tested = tmp_path / f'tested{len(errors)}'
        call_tool(
            *('test.py', given, folder / 'epoch_1.pth'),
            *('--work-dir', tested),
        )
        errors.append(read_metrics(tested)['metrics']['mini/error'])
    assert errors[0] == errors[1] < 1.5 * 7 / 16
    # what is mixed precision already stays
    call_tool(
        *('train.py', folder / 'pure.py', '--amp'),
        *('--work-dir', tmp_path / 'again'),
    )


@pytest.fixture
def story_set(call_tool, tmp_path):
    folder = tmp_path / 'story_data'
    call_tool(
        *('dataset_converters/story.py', '--out', folder),
        *('--limit', 16, '--workers', 1),
    )
    return folder


@pytest.mark.nightly
@pytest.mark.slow
def test_a_shipped_config_by_name_with_other_settings(
    call_tool, story_set, tmp_path, monkeypatch
):
    """The model that is trained has the sizes asked for, and is tested."""
    monkeypatch.chdir(tmp_path)
    options = [f'data_root={story_set}', 'num_frames=3', 'max_words=12']
    options += ['batch_size=8', 'image_size=40']
    quick = [
        *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
        *(f'{x}_dataloader.num_workers=0' for x in ('train', 'val', 'test')),
        'train_dataloader.persistent_workers=False',
    ]
    call_tool('train.py', 'eaglenet_story', '--cfg-options', *options, *quick)
    work = tmp_path / 'work_dirs' / 'eaglenet_story'
    weights = load_checkpoint_file(work / 'epoch_1.pth')['state_dict']
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    rows = {
        side: shapes[f'{side}_encoder.tower.positional_embedding'][0]
        for side in ('text', 'video')
    }
    assert rows == dict(text=12, video=26)  # 5 x 5 patches and the class
    saved = Config.fromfile(work / 'eaglenet_story.py')
    assert saved.data_root == str(story_set)
    assert saved.num_frames == saved.model.head.num_frames == 3
    assert saved.train_dataloader.batch_size == 8
    checkpoint = work / 'epoch_1.pth'
    for name, given in (
        ('named', ['eaglenet_story', checkpoint]),
        ('saved', [work / 'eaglenet_story.py', checkpoint]),
    ):
        extra = [*options, *quick] if name == 'named' else quick
        call_tool(
            *('test.py', *given, '--work-dir', name),
            *('--cfg-options', *extra),
        )
    assert (
        read_metrics(tmp_path / 'named')['metrics']
        == read_metrics(tmp_path / 'saved')['metrics']
    )
    with pytest.raises(ValueError, match='positional_embedding'):
        call_tool(
            *('test.py', 'eaglenet_story', checkpoint, '--work-dir', 'x'),
            *('--cfg-options', f'data_root={story_set}', *quick),
        )


@pytest.mark.nightly
@pytest.mark.slow
def test_training_over_an_installed_config(
    call_tool, story_set, tmp_path, monkeypatch
):
    """``_base_ = 'eaglenet_mm::...'``, as other OpenMMLab packages have it."""
    monkeypatch.chdir(tmp_path)
    name = 'eaglenet_vit-tiny-p8-res24_1xb32-u8-12e_story-rgb'
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = 'eaglenet_mm::eaglenet/{name}.py'\n"
        f'data_root = {str(story_set)!r}\n'
        'num_frames = 3\nbatch_size = 8\n'
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
        'train_dataloader = dict(num_workers=0, persistent_workers=False)\n'
        'val_dataloader = dict(num_workers=0)\n'
        'test_dataloader = dict(num_workers=0)\n'
    )
    call_tool('train.py', config)
    saved = tmp_path / 'work_dirs' / 'mine'
    call_tool('test.py', saved / 'mine.py', saved / 'epoch_1.pth')
    assert 't2v/R1' in read_metrics(saved)['metrics']
    cfg = Config.fromfile(saved / 'mine.py')
    assert cfg.test_dataloader.dataset.data_root == str(story_set)
    assert cfg.test_dataloader.dataset.pipeline[1].num_frames == 3
