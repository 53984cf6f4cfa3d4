"""The prepared state of a head as plain tensors, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor

from eaglenet_mm.structures import Features

FeaturesT = TypeVar('FeaturesT', bound=Features)


def flatten_state(state: Features) -> dict[str, Tensor]:
    """List the tensors of a state by name, nested ones as ``outer.inner``."""
    tensors: dict[str, Tensor] = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Features):
            for name, tensor in flatten_state(value).items():
                tensors[f'{field.name}.{name}'] = tensor
        elif value is not None:
            tensors[field.name] = value
    return tensors


def restore_state(
    template: FeaturesT, tensors: dict[str, Tensor], prefix: str = ''
) -> FeaturesT:
    """Make a state of the kind of another one.

    A file names tensors, never classes: those come from the head at hand.
    """
    values: dict[str, Any] = {}
    for field in fields(template):
        value = getattr(template, field.name)
        name = f'{prefix}{field.name}'
        if isinstance(value, Features):
            value = restore_state(value, tensors, f'{name}.')
        elif value is not None:
            value = tensors[name]
        values[field.name] = value
    return type(template)(**values)
