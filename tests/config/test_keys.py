"""Mistyped keys are found; keys of the user's own are left alone."""

import inspect

import pytest
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from eaglenet_mm.config.keys import (
    check_config_keys,
    check_options,
    runner_keys,
    variable_names,
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


#: What MMEngine 0.10 reads of a config, looked up in its documentation.
OPTIONAL = [
    *('sync_bn', 'activation_checkpointing', 'efficient_conv_bn_eval'),
    *('strategy', 'compile', 'find_unused_parameters', 'model_wrapper_cfg'),
    *('auto_scale_lr', 'experiment_name', 'runner_type', 'custom_imports'),
    *('data_preprocessor', 'log_processor', 'randomness', 'work_dir'),
]


@pytest.mark.parametrize('key', OPTIONAL)
def test_every_key_of_both_runners_is_an_option(cfg, key):
    check_options(cfg, {key: 1, f'{key}.part': 1})
    wrong = f'{key[:4]}x{key[4:]}'
    with pytest.raises(KeyError, match=f"did you mean '{key}'"):
        check_options(cfg, {wrong: 1})
    cfg[key] = 1
    check_config_keys(cfg)


def test_arguments_of_both_runners_are_known():
    for runner in (Runner, FlexibleRunner):
        arguments = set(inspect.signature(runner).parameters) - {'cfg'}
        assert arguments <= runner_keys()


def test_what_a_pure_python_config_imports_is_no_key(tmp_path):
    """'Visualizer' is no mistyped 'visualizer'."""
    path = tmp_path / 'pure.py'
    path.write_text(
        'from mmengine.visualization import Visualizer\nmine = 3\n'
    )
    cfg = Config.fromfile(path)
    assert 'Visualizer' in cfg
    check_config_keys(cfg)
    assert variable_names(cfg) == {'mine'}


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
