"""Limits of learnable temperatures."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from eaglenet_mm.registry import HOOKS


@HOOKS.register_module()
class LogitScaleClampHook(Hook):
    """Clamp the logit scales that have a limit after each iteration.

    Applies to modules with a ``max_log_scale`` and a ``clamp_()``, such as
    :class:`~eaglenet_mm.models.losses.InfoNCELoss`; CLIP and the release keep
    the log scale at or below ``ln 100``. Runs before hooks of normal priority,
    so that an average of the weights (EMA) sees the clamped value.

    Example:
        >>> custom_hooks = [dict(type='LogitScaleClampHook')]
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._modules: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Find the modules to clamp and log their names."""
        model: Any = runner.model
        if is_model_wrapper(model):
            model = model.module
        found = {
            name: module
            for name, module in model.named_modules()
            if hasattr(module, 'max_log_scale')
            and callable(getattr(module, 'clamp_', None))
        }
        self._modules = list(found.values())
        print_log(
            f'LogitScaleClampHook clamps {list(found) or "nothing"}.',
            logger='current',
        )

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Clamp the logit scales."""
        for module in self._modules:
            module.clamp_()
