"""The prepared state of a head as plain tensors, and back."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from eaglenet_mm.structures import Features

FeaturesT = TypeVar('FeaturesT', bound=Features)


def flatten_state(state: Features) -> dict[str, Tensor]:
    """List the tensors of a state by name, nested ones as ``outer.inner``."""
    tensors: dict[str, Tensor] = {}
    for name, value in vars(state).items():
        if isinstance(value, Features):
            inner = flatten_state(value)
            tensors |= {f'{name}.{x}': own for x, own in inner.items()}
        elif value is not None:
            tensors[name] = value
    return tensors


def restore_state(
    template: FeaturesT, tensors: dict[str, Tensor]
) -> FeaturesT:
    """Make a state of the kind of another one.

    A file names tensors, never classes: those come from the head at hand.
    """
    names = iter(flatten_state(template))  # in the order of map
    return template.map(lambda _: tensors[next(names)])
