"""The prepared state of a head as plain tensors, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor

from eaglenet_mm.structures import Features

FeaturesT = TypeVar('FeaturesT', bound=Features)


def flatten_state(state: Features) -> dict[str, Tensor]:
    """List the tensors of a state by name, nested ones as ``outer.inner``.

    Args:
        state (Features): Of a head's ``prepare_video``, ``n`` rows.

    Returns:
        dict[str, Tensor]: The tensors that are present, shape ``(n, ...)``.
    """
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

    Args:
        template (Features): A state of the same head, of any row count.
        tensors (dict[str, Tensor]): Of :func:`flatten_state`.
        prefix (str): In front of the names. Default: ''.

    Returns:
        Features: With the given tensors.

    Raises:
        KeyError: If a tensor is missing.
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
