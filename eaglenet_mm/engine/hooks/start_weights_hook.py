"""Warnings of encoders with random weights."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from eaglenet_mm.config.start_weights import (
    asks_for_random_weights,
    names_weights,
)
from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    HuggingFaceTextEncoder,
    RegisteredEncoder,
    RegisteredTextEncoder,
)
from eaglenet_mm.registry import HOOKS
from eaglenet_mm.utils.name_lists import name_some

#: Settings that give an encoder its weights.
_KEYS: dict[type, tuple[str, ...]] = {
    CLIPTextEncoder: ('pretrained',),
    CLIPVideoEncoder: ('pretrained',),
    RegisteredEncoder: ('backbone.pretrained', 'checkpoint'),
    RegisteredTextEncoder: ('backbone.pretrained',),
    HuggingFaceTextEncoder: ('model',),
}
#: Learning rates below are for pretrained weights: published recipes have
#: 1e-7 to 1e-6 for CLIP, and 3e-5 or more for new layers.
_SLOW_RATE = 1e-5


@HOOKS.register_module()
class StartWeightsHook(Hook):
    """Warn of encoders with random weights, and of their learning rates.

    At the start of a training, an encoder without initial weights is named
    with the setting that provides them, unless a checkpoint fills it or the
    config asks for random ones by ``pretrained=False``. Random weights with a
    learning rate made for pretrained ones, below 1e-5, are named in any case:
    they would hardly change. So are new projections on a pretrained backbone.
    At the start of a test, every encoder that no checkpoint fills is named.

    Example:
        >>> custom_hooks = [dict(type='StartWeightsHook')]
    """

    def __init__(self) -> None:
        self._loaded: Collection[str] = ()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember which weights the checkpoint has."""
        weights = checkpoint.get('state_dict', checkpoint)
        self._loaded = {name.removeprefix('module.') for name in weights}

    def before_train(self, runner: Runner) -> None:
        """Warn of random weights and of rates at which they stay so."""
        for part, encoder, settings in self._random_encoders(runner):
            if asks_for_random_weights(settings):
                continue
            name, keys = _described(part, encoder)
            backbone = 'backbone.' if 'backbone' in settings else ''
            _warn(
                f'{name} starts from random weights. Set {keys}, or load_from '
                'to a checkpoint of the model. If it is to start from random '
                f'weights, set model.{part}.{backbone}pretrained=False.'
            )
        for part, rates in self._slow_rates(runner):
            _warn(
                f'{len(rates)} parameters of {part} start from random '
                f'numbers, but learn at a rate of {max(rates.values()):.0e}, '
                'which is for pretrained weights: they would hardly change '
                f'({name_some(list(rates))}). Raise their rate, lr_mult of a '
                'rule in optim_wrapper.paramwise_cfg, or load pretrained '
                'weights.'
            )

    def before_test(self, runner: Runner) -> None:
        """Warn of random weights."""
        for part, encoder, _ in self._random_encoders(runner):
            name, keys = _described(part, encoder)
            _warn(
                f'{name} has random weights, so the results mean nothing. '
                f'Give a checkpoint, or set {keys}.'
            )

    def _is_loaded(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._loaded)

    def _encoders(self, runner: Any) -> Iterator[tuple[str, nn.Module, Any]]:
        """Yield name, encoder and settings of those that can have weights."""
        model = _unwrapped(runner.model)
        for name in ('text_encoder', 'video_encoder'):
            encoder = getattr(model, name, None)
            if encoder is not None and _keys_of(encoder):
                yield name, encoder, runner.cfg.model.get(name)

    def _random_encoders(
        self, runner: Any
    ) -> Iterator[tuple[str, nn.Module, Any]]:
        for name, encoder, settings in self._encoders(runner):
            if not self._is_loaded(f'{name}.') and not names_weights(settings):
                yield name, encoder, settings

    def _slow_rates(
        self, runner: Any
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield low learning rates of random parameters, by encoder."""
        rates = _rates_of(runner.optim_wrapper)
        for name, encoder, settings in self._encoders(runner):
            prefix = 'projection.' if names_weights(settings) else ''
            if self._is_loaded(f'{name}.{prefix}'):
                continue
            slow = {
                f'{name}.{key}': rates[id(parameter)]
                for key, parameter in encoder.named_parameters()
                if key.startswith(prefix)
                and parameter.requires_grad
                and rates.get(id(parameter), 1.0) < _SLOW_RATE
            }
            if slow:
                yield name, slow


def _unwrapped(model: Any) -> Any:
    while is_model_wrapper(model):
        model = model.module
    return model


def _keys_of(encoder: nn.Module) -> tuple[str, ...]:
    for kind, keys in _KEYS.items():
        if isinstance(encoder, kind):
            return keys
    return ()


def _rates_of(wrapper: Any) -> dict[int, float]:
    """Learning rates before warm-up, by the identity of the parameter."""
    wrappers = (
        wrapper.values()
        if isinstance(wrapper, OptimWrapperDict)
        else [wrapper]
    )
    return {
        id(parameter): group.get('initial_lr', group['lr'])
        for one in wrappers
        for group in one.optimizer.param_groups
        for parameter in group['params']
    }


def _described(part: str, encoder: nn.Module) -> tuple[str, str]:
    """Name an encoder, and the settings that give it weights."""
    keys = ' or '.join(f'model.{part}.{key}' for key in _keys_of(encoder))
    return f'{part} ({type(encoder).__name__})', keys


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
