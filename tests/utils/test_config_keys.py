"""Mistyped keys are found; keys of the user's own are left alone."""

import pytest
from mmengine.config import Config

from eaglenet_mm.utils.config_keys import (
    check_config_keys,
    check_options,
    runner_keys,
)


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / 'some_config.py'
    path.write_text(
        'model = dict(type="A")\n'
        'optim_wrapper = dict()\n'
        'train_pipeline = []\n'
        'data_root = "data"\n'
        'default_hooks = dict()\n'
    )
    return Config.fromfile(path)


def test_runner_keys():
    assert {'model', 'custom_hooks', 'auto_scale_lr'} <= runner_keys()
    assert not {'self', 'cfg'} & runner_keys()


def test_own_variables_are_allowed(cfg):
    check_config_keys(cfg)


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [
        ('custom_hook', 'custom_hooks'),
        ('test_dataloaders', 'test_dataloader'),
        ('param_schedulers', 'param_scheduler'),
        ('randomnes', 'randomness'),
    ],
)
def test_mistyped_key_of_a_config(cfg, wrong, right):
    cfg[wrong] = dict()
    with pytest.raises(KeyError, match=rf"'{wrong}'.*did you mean '{right}'"):
        check_config_keys(cfg)
    cfg[right] = dict()  # a variable beside the real key is the user's
    check_config_keys(cfg)


@pytest.mark.parametrize(
    'name', ['model.head.width', 'data_root', 'load_from', 'compile']
)
def test_known_options(cfg, name):
    check_options(cfg, {name: 1})


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('modl.head.x', 'model.head.x'),
        ('optim_wraper.optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('data_rot', 'data_root'),
    ],
)
def test_mistyped_option(cfg, name, nearest):
    with pytest.raises(KeyError, match=f"did you mean '{nearest}'") as info:
        check_options(cfg, {name: 1})
    assert 'some_config.py' in str(info.value)


def test_option_like_no_key(cfg):
    with pytest.raises(KeyError, match='its keys are data_root, default'):
        check_options(cfg, {'zzzz': 1})
