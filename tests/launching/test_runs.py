"""Options to config, without starting anything."""

import argparse
import os

import pytest
import torch
from mmengine.config import Config
from torch import nn

from eaglenet_mm.launching import runs
from eaglenet_mm.utils.type_name import type_name


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'some_config.py'
    path.write_text(
        'optim_wrapper = dict(optimizer=dict(type="SGD", lr=1.))\n'
        'randomness = dict(seed=5, deterministic=False)\n'
        'val_cfg = dict()\nval_dataloader = dict()\nval_evaluator = dict()\n'
    )
    return path


@pytest.fixture
def parse(config, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('EAGLENET_MM_TRUST_CHECKPOINTS', '0')

    def parse_options(*options):
        parser = argparse.ArgumentParser()
        parser.add_argument('config')
        parser.add_argument('--resume', nargs='?', const='auto')
        parser.add_argument('--seed', type=int)
        for flag in ('amp', 'no-validate', 'auto-scale-lr'):
            parser.add_argument(f'--{flag}', action='store_true')
        for flag in ('diff-rank-seed', 'deterministic'):
            parser.add_argument(f'--{flag}', action='store_true')
        runs.add_launch_arguments(parser)
        return parser.parse_args([str(config), *map(str, options)])

    return parse_options


@pytest.fixture
def merged(parse):
    def merge(*options):
        args = parse(*options)
        cfg = runs.load_config(args)
        runs.merge_train_arguments(cfg, args)
        return cfg

    return merge


def test_defaults(merged):
    cfg = merged()
    assert cfg.launcher == 'none'
    assert cfg.work_dir == os.path.join('work_dirs', 'some_config')
    assert cfg.randomness == dict(seed=5, deterministic=False)
    assert 'resume' not in cfg
    assert cfg.val_cfg == {}


def test_work_dir_of_the_command_line_wins(merged, config):
    config.write_text(config.read_text() + 'work_dir = "own"\n')
    assert merged().work_dir == 'own'
    assert merged('--work-dir', 'other').work_dir == 'other'


def test_cfg_options_and_launcher(merged):
    cfg = merged(
        *('--launcher', 'slurm'),
        *('--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'load_from=a'),
    )
    assert cfg.launcher == 'slurm'
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.load_from == 'a'


def test_local_rank_is_handed_on_but_not_over_the_launchers(
    parse, monkeypatch
):
    runs.load_config(parse('--local-rank', 3))
    assert os.environ['LOCAL_RANK'] == '0'
    monkeypatch.delenv('LOCAL_RANK')
    runs.load_config(parse('--local_rank', 3))
    assert os.environ['LOCAL_RANK'] == '3'


def test_trust_is_off_unless_asked_for(parse):
    runs.load_config(parse())
    assert os.environ['EAGLENET_MM_TRUST_CHECKPOINTS'] == '0'
    runs.load_config(parse('--trust-checkpoint'))
    assert os.environ['EAGLENET_MM_TRUST_CHECKPOINTS'] == '1'


def test_a_config_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    runs.add_launch_arguments(parser)
    args = ['eaglenet_story', '--cfg-options', 'num_frames=3', 'sync_bn=torch']
    cfg = runs.load_config(parser.parse_args(args))
    assert cfg.work_dir == os.path.join('work_dirs', 'eaglenet_story')
    assert cfg.model.head.num_frames == 3
    assert cfg.sync_bn == 'torch'


def test_mistyped_key_of_the_file(parse, config):
    config.write_text(config.read_text() + 'custom_hook = []\n')
    with pytest.raises(KeyError, match="'custom_hook'"):
        runs.load_config(parse())


def test_no_validate(merged):
    cfg = merged('--no-validate')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


def test_seeds(merged):
    cfg = merged('--seed', 7, '--deterministic', '--diff-rank-seed')
    assert cfg.randomness == dict(
        seed=7, deterministic=True, diff_rank_seed=True
    )


def test_resume(merged, tmp_path):
    cfg = merged('--resume')
    assert cfg.resume
    assert cfg.load_from is None
    checkpoint = tmp_path / 'a.pth'
    with pytest.raises(FileNotFoundError, match=r'a\.pth.* no \*\.pth file'):
        merged('--resume', checkpoint)
    checkpoint.touch()
    assert merged('--resume', checkpoint).load_from == str(checkpoint)


def test_resume_before_the_first_checkpoint(merged, tmp_path):
    """The weights to start from count until there is something to resume."""
    options = ('--resume', '--work-dir', tmp_path)
    start = ('--cfg-options', 'load_from=start.pth')
    cfg = merged(*options, *start)
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')
    (tmp_path / 'epoch_1.pth').touch()
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    cfg = merged(*options, *start)
    assert (cfg.resume, cfg.load_from) == (True, None)


def test_missing_checkpoint_lists_those_there(tmp_path):
    (tmp_path / 'epoch_3.pth').touch()
    with pytest.raises(FileNotFoundError, match=r'epoch_4.*epoch_3\.pth'):
        runs.check_checkpoint(str(tmp_path / 'epoch_4.pth'))
    runs.check_checkpoint('https://example.org/a.pth')


@pytest.mark.parametrize(
    ('device', 'kind', 'key', 'value'),
    [
        ('cpu', 'AutocastOptimWrapper', 'dtype', 'bfloat16'),
        ('cuda', 'AmpOptimWrapper', 'loss_scale', 'dynamic'),
    ],
)
def test_amp_by_device(merged, monkeypatch, device, kind, key, value):
    monkeypatch.setattr('mmengine.device.get_device', lambda: device)
    wrapper = merged('--amp').optim_wrapper
    assert wrapper.type == kind
    assert wrapper[key] == value
    assert wrapper.optimizer.type == 'SGD'


def test_amp_leaves_mixed_precision_of_the_config(merged):
    option = ('--cfg-options', 'optim_wrapper.type=AmpOptimWrapper')
    wrapper = merged('--amp', *option).optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    assert 'loss_scale' not in wrapper


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('OptimWrapper', 'AutocastOptimWrapper'),
        ('AmpOptimWrapper', 'AmpOptimWrapper'),
        ('ApexOptimWrapper', None),
    ],
)
@pytest.mark.parametrize('style', ['class', 'scope', 'path'])
def test_amp_with_types_that_are_no_bare_names(
    parse, config, monkeypatch, kind, expected, style
):
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cpu')
    if style == 'class':  # a pure Python config
        head, name = f'from mmengine.optim import {kind}\n', kind
    else:
        path = 'mmengine.optim' if style == 'path' else 'mmengine'
        head, name = '', f'{path}.{kind}'.__repr__()
    config.write_text(
        f'{head}optim_wrapper = dict(type={name}, optimizer=dict(lr=1.0))\n'
    )
    args = parse('--amp')
    cfg = runs.load_config(args)
    if expected is None:
        with pytest.raises(ValueError, match="is 'ApexOptimWrapper'"):
            runs.merge_train_arguments(cfg, args)
        return
    runs.merge_train_arguments(cfg, args)
    assert type_name(cfg.optim_wrapper) == expected


def test_auto_scale_lr(merged):
    with pytest.raises(KeyError, match='base_batch_size'):
        merged('--auto-scale-lr')
    options = ('--cfg-options', 'auto_scale_lr.base_batch_size=8')
    cfg = merged('--auto-scale-lr', *options)
    assert cfg.auto_scale_lr == dict(base_batch_size=8, enable=True)


class OwnRunner:
    model = nn.Linear(2, 1)

    def __init__(self, cfg):
        self.cfg = cfg

    @classmethod
    def from_cfg(cls, cfg):
        return cls(cfg)

    def load_checkpoint(self, filename, map_location, strict):
        return {'weight': torch.ones(1, 2), 'strict': strict}


@pytest.mark.parametrize('strict', [True, False])
def test_build_runner_of_another_type(monkeypatch, strict):
    monkeypatch.setattr(runs.RUNNERS, 'build', OwnRunner)
    cfg = Config(dict(runner_type='OwnRunner', launcher='none'))
    runner = runs.build_runner(cfg, strict=strict)
    assert isinstance(runner, OwnRunner)
    assert runner.load_checkpoint('a')['strict'] is strict


def test_build_the_default_runner(monkeypatch):
    monkeypatch.setattr(runs, 'Runner', OwnRunner)
    assert isinstance(runs.build_runner(Config(), False), OwnRunner)


@pytest.mark.parametrize('deterministic', [True, False])
def test_deterministic_products_of_cublas(monkeypatch, deterministic):
    """Torch refuses them on a GPU without this variable."""
    monkeypatch.setattr(runs, 'Runner', OwnRunner)
    name = 'CUBLAS_WORKSPACE_CONFIG'
    monkeypatch.setenv(name, 'restored after the test')
    monkeypatch.delenv(name)
    randomness = dict(seed=1, deterministic=deterministic)
    runs.build_runner(Config(dict(randomness=randomness)), False)
    assert os.environ.get(name) == (':4096:8' if deterministic else None)
