"""What is exported: a module with the names and axes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Program:
    """A module and what is to be known of it to export and to check it.

    Args:
        name (str): Of the file, without its ending.
        module (nn.Module): Takes tensors, or tuples of tensors; gives a
            tensor or a tuple of them.
        input_names (Sequence[str]): Of the tensors, in order.
        output_names (Sequence[str]): Likewise.
        axes (tuple): For each argument a dict from axis to the name of its
            size, or a tuple of such dicts: what the file leaves open.
        draw (Callable): Takes sizes by name, gives random arguments.
        sizes (dict): Sizes at which the module is traced, above 1 and all
            different, so that none is mistaken for another or for a constant.
        other_sizes (Sequence[dict]): Sizes at which the file is checked too.
        optional (dict): Sizes that may be fixed if the module needs it, and
            to what.
        limits (dict): The most that a size may be, where there is a limit.
    """

    name: str
    module: nn.Module
    input_names: Sequence[str]
    output_names: Sequence[str]
    axes: tuple[Any, ...]
    draw: Callable[..., tuple[Any, ...]]
    sizes: Mapping[str, int]
    other_sizes: Sequence[Mapping[str, int]]
    optional: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)

    def fix_optional(self) -> Program:
        """Give the same program with the optional sizes fixed."""

        def fix(axes: Any) -> Any:
            if isinstance(axes, tuple):
                return tuple(fix(part) for part in axes)
            return {k: v for k, v in axes.items() if v not in self.optional}

        return replace(
            self,
            axes=fix(self.axes),
            sizes={**self.sizes, **self.optional},
            other_sizes=[{**x, **self.optional} for x in self.other_sizes],
            optional={},
        )

    def flat_axes(self) -> list[dict[int, str]]:
        """Give the open axes of each input, in the order of the names."""
        return list(_leaves(self.axes))

    @torch.no_grad()
    def run(self, arguments: tuple[Any, ...]) -> list[Tensor]:
        """Run the module itself, give its tensors in order."""
        return flatten(self.module(*arguments))

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Describe inputs and outputs.

        Returns:
            tuple[dict, dict]: For each tensor by name its ``dtype`` and
            ``shape``, in which an open size is the name of it.
        """
        axes = self.flat_axes()
        arguments = self.draw(**self.sizes)
        inputs = {
            name: _describe(x, open_axes)
            for name, x, open_axes in zip(
                self.input_names, flatten(arguments), axes, strict=True
            )
        }
        opened = {name for part in axes for name in part.values()}
        outputs = {
            name: _describe(x, {})
            for name, x in zip(
                self.output_names, self.run(arguments), strict=True
            )
        }
        # an axis of an output is open if it follows a size that is changed
        for size in opened:
            larger = {**self.sizes, size: self.sizes[size] + 1}
            limit = self.limits.get(size)
            if limit is not None and larger[size] > limit:
                larger[size] = self.sizes[size] - 1
            changed = self.run(self.draw(**larger))
            for described, x in zip(outputs.values(), changed, strict=True):
                for axis, length in enumerate(x.shape):
                    if described['shape'][axis] not in (length, *opened):
                        described['shape'][axis] = size
        return inputs, outputs


def flatten(values: Any) -> list[Tensor]:
    """Put tensors in tuples of tensors in one row."""
    if isinstance(values, Tensor):
        return [values]
    return [x for part in values for x in flatten(part)]


def _leaves(axes: Any) -> Iterator[dict[int, str]]:
    if isinstance(axes, dict):
        yield axes
    else:
        for part in axes:
            yield from _leaves(part)


def _describe(x: Tensor, open_axes: Mapping[int, str]) -> dict[str, Any]:
    shape = [open_axes.get(axis, size) for axis, size in enumerate(x.shape)]
    return {'dtype': str(x.dtype).removeprefix('torch.'), 'shape': shape}
