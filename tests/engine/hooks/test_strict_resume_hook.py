"""States of several optimisers and loss scales; the rest is in tests/tools."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from eaglenet_mm.engine.hooks import StrictResumeHook


def wrap(lr=0.1, scale=False, optimizer=torch.optim.Adam):
    wrapper = OptimWrapper(optimizer(nn.Linear(2, 2).parameters(), lr=lr))
    if scale:
        wrapper.loss_scaler = object()
    return wrapper


def build_schedule(wrapper, config):
    return PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=wrapper))


def make_runner(wrapper, hooks=(), schedulers=None):
    return SimpleNamespace(
        _resume=True,
        _load_from='some.pth',
        hooks=list(hooks),
        model=nn.Linear(2, 2),
        optim_wrapper=wrapper,
        param_schedulers=schedulers,
        max_epochs=2,
        max_iters=8,
    )


def checkpoint_of(runner, **changes):
    wrappers = runner.optim_wrapper
    for wrapper in getattr(wrappers, 'optim_wrappers', {0: wrappers}).values():
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                parameter.grad = torch.ones_like(parameter)
        wrapper.optimizer.step()
    states = {
        'meta': dict(epoch=1, iter=4),
        'state_dict': runner.model.state_dict(),
        'message_hub': {'runtime_info': dict(max_epochs=2, max_iters=8)},
        'optimizer': runner.optim_wrapper.state_dict(),
    }
    return copy.deepcopy({**states, **changes})


def check(runner, checkpoint):
    StrictResumeHook().after_load_checkpoint(runner, checkpoint)


def test_the_same_passes_and_stays_as_it_is():
    runner = make_runner(wrap())
    content = checkpoint_of(runner)
    before = copy.deepcopy(content)
    check(runner, content)
    torch.testing.assert_close(content['optimizer'], before['optimizer'])
    assert content.keys() == before.keys()


def test_what_is_only_loaded_is_not_compared():
    runner = make_runner(wrap())
    runner._resume = False
    check(runner, {'state_dict': {}})


def test_an_optimizer_without_its_moments():
    runner = make_runner(wrap())
    content = checkpoint_of(runner)
    content['optimizer']['state'] = {}
    with pytest.raises(ValueError, match='Adam has lost the moments'):
        check(runner, content)
    content['meta']['iter'] = 0  # gradients were only accumulated
    check(runner, content)
    plain = make_runner(wrap(optimizer=torch.optim.SGD))
    content = checkpoint_of(plain)
    content['optimizer']['state'] = {}
    check(plain, content)


def test_a_parameter_of_another_shape():
    """As positions are that were resized since."""
    runner = make_runner(wrap())
    runner.val_loop = None
    runner.train_loop = SimpleNamespace(iter=0)
    content = checkpoint_of(runner)
    hook = StrictResumeHook()
    hook.after_load_checkpoint(runner, content)
    runner.optim_wrapper.load_state_dict(content['optimizer'])
    hook.before_train(runner)
    for parameter in runner.optim_wrapper.optimizer.param_groups[0]['params']:
        parameter.data = parameter.new_zeros(2, 3)
    with pytest.raises(
        ValueError, match=r'shape \(2, 2\) where the model has \(2, 3\)'
    ):
        hook.before_train(runner)


@pytest.mark.parametrize('scaled', [True, False])
def test_a_loss_scale_in_one_of_them(scaled):
    runner = make_runner(wrap(scale=scaled))
    content = checkpoint_of(runner)
    if not scaled:
        content['optimizer']['loss_scaler'] = {'scale': 8.0}
    word = 'lacks the' if scaled else 'has a'
    with pytest.raises(ValueError, match=rf'some\.pth .* {word} loss_scaler'):
        check(runner, content)


def several(**options):
    return OptimWrapperDict(one=wrap(), two=wrap(**options))


def test_several_optimizers():
    runner = make_runner(several())
    check(runner, checkpoint_of(runner))
    content = checkpoint_of(runner)
    del content['optimizer']['two']
    with pytest.raises(ValueError, match='lacks optimizer'):
        check(runner, content)
    content = checkpoint_of(runner)
    other = make_runner(several(lr=0.2))
    with pytest.raises(ValueError, match=r"'two' .*lr 0\.1, the config 0\.2"):
        check(other, content)
    other = make_runner(several(optimizer=torch.optim.SGD))
    with pytest.raises(ValueError, match='where SGD of the config'):
        check(other, content)


def test_a_momentum_that_is_scheduled_moves():
    wrapper = wrap()
    config = dict(type='StepMomentum', step_size=1, gamma=0.5, by_epoch=True)
    schedule = build_schedule(wrapper, config)
    runner = make_runner(wrapper, schedulers=[schedule])
    checkpoint_of(runner)
    schedule.step()
    content = checkpoint_of(runner, param_schedulers=[schedule.state_dict()])
    fresh = wrap()
    again = build_schedule(fresh, config)
    assert fresh.param_groups[0]['betas'] != wrapper.param_groups[0]['betas']
    check(make_runner(fresh, schedulers=[again]), content)


class KeepsState(Hook):
    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['own_state'] = 1


def test_states_of_any_hook():
    runner = make_runner(wrap(), hooks=[KeepsState()])
    check(runner, checkpoint_of(runner, own_state=3))
    with pytest.raises(ValueError, match='lacks own_state of KeepsState'):
        check(runner, checkpoint_of(runner))


def test_a_plateau_cannot_be_stretched():
    wrapper = wrap()
    schedule = build_schedule(
        wrapper, dict(type='ReduceOnPlateauLR', monitor='loss')
    )
    runner = make_runner(wrapper, schedulers=[schedule])
    content = checkpoint_of(runner, param_schedulers=[schedule.state_dict()])
    with pytest.raises(ValueError, match=r"\['ReduceOnPlateauLR'\]"):
        StrictResumeHook(stretch_schedule=True).after_load_checkpoint(
            runner, content
        )
