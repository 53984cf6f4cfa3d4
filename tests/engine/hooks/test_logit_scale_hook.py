from __future__ import annotations

from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner.priority import Priority, get_priority
from torch import nn

from eaglenet_mm.engine.hooks import LogitScaleClampHook


class Scale(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.max_log_scale = 4.6
        self.log_scale = nn.Parameter(torch.tensor(value))

    @torch.no_grad()
    def clamp_(self) -> None:
        self.log_scale.clamp_(max=self.max_log_scale)


def after_one_iteration(model: nn.Module) -> None:
    hook, runner = LogitScaleClampHook(), SimpleNamespace(model=model)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)


def test_scales_above_the_limit_are_clamped():
    model = nn.ModuleList([Scale(5.0), nn.Linear(1, 1), Scale(2.0)])
    after_one_iteration(model)
    assert float(model[0].log_scale.detach()) == torch.tensor(4.6)
    assert float(model[2].log_scale.detach()) == 2.0


def test_models_without_a_scale_are_left_alone():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    after_one_iteration(model)
    assert torch.equal(model.weight, before)


def test_wrapped_models(monkeypatch):
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = Scale(9.0)
    after_one_iteration(wrapper)
    assert float(wrapper.module.log_scale.detach()) == torch.tensor(4.6)


def test_the_clamp_precedes_the_average():
    ours = get_priority(LogitScaleClampHook.priority)
    assert ours < get_priority(EMAHook.priority)
    assert ours == Priority.ABOVE_NORMAL.value
