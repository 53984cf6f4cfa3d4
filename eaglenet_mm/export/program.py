"""Programs to export: modules, their tracing and verification."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

#: Errors of ``torch.export`` for untraceable code; those of its tracer are
#: RuntimeErrors.
_EXPORT_ERRORS = (AssertionError, RuntimeError, TypeError, ValueError)
#: Outputs of the model below this count as zero.
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Program:
    """A module and what is needed to export and verify it."""

    #: File name without suffix.
    name: str
    #: Maps tensors, or tuples of tensors, to a tensor or a tuple of them.
    module: nn.Module
    input_names: Sequence[str]
    output_names: Sequence[str]
    #: Dynamic axes of each argument: a dict from axis to the name of its size,
    #: or a tuple of such dicts.
    axes: tuple[Any, ...]
    #: Maps named sizes to random arguments.
    draw: Callable[..., tuple[Any, ...]]
    #: Sizes for tracing, distinct and above 1, so that none is confused with
    #: another or with a constant.
    sizes: Mapping[str, int]
    #: Further sizes to verify.
    other_sizes: Sequence[Mapping[str, int]]
    #: Sizes that may be fixed if the module needs it, with their values.
    optional: Mapping[str, int] = field(default_factory=dict)
    #: Maximum values of sizes, where limited.
    limits: Mapping[str, int] = field(default_factory=dict)

    def fix_optional(self) -> Program:
        """Return the same program with the optional sizes fixed."""

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
        """Return the dynamic axes of each input, in order of names."""
        return flatten(self.axes)

    @torch.no_grad()
    def run(self, arguments: tuple[Any, ...]) -> list[Tensor]:
        """Run the module and return its output tensors in order."""
        return flatten(self.module(*arguments))

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return ``dtype`` and ``shape`` of inputs and outputs, by name.

        Dynamic sizes in shapes are given by name.
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
        # an output axis is dynamic if it changes with a size
        for size in opened:
            larger = {**self.sizes, size: self.sizes[size] + 1}
            if larger[size] > self.limits.get(size, larger[size]):
                larger[size] = self.sizes[size] - 1
            changed = self.run(self.draw(**larger))
            for described, x in zip(outputs.values(), changed, strict=True):
                for axis, length in enumerate(x.shape):
                    if described['shape'][axis] not in (length, *opened):
                        described['shape'][axis] = size
        return inputs, outputs


def flatten(values: Any) -> list[Any]:
    """Flatten nested tuples and lists."""
    if not isinstance(values, tuple | list):
        return [values]
    return [x for part in values for x in flatten(part)]


def _describe(x: Tensor, open_axes: Mapping[int, str]) -> dict[str, Any]:
    shape = [open_axes.get(axis, size) for axis, size in enumerate(x.shape)]
    return {'dtype': str(x.dtype).removeprefix('torch.'), 'shape': shape}


@torch.no_grad()
def trace(program: Program) -> tuple[ExportedProgram, Program]:
    """Trace a module; fixes the optional sizes of the program if needed."""
    try:
        return _trace(program), program
    except _EXPORT_ERRORS as err:
        reason = f'{type(err).__name__}: {str(err)[:400]}'
        if not program.optional:
            raise ValueError(
                f'torch.export cannot trace {program.name} ({reason}). It '
                'cannot trace control flow that depends on tensor values; use '
                'this model from Python.'
            ) from err
    fixed = ', '.join(f'{k}={v}' for k, v in program.optional.items())
    print_log(
        f'{program.name} cannot be exported for any {fixed.partition("=")[0]}'
        f', so the file takes {fixed} only ({reason}).',
        logger='current',
        level=logging.WARNING,
    )
    return trace(program.fix_optional())


def _trace(program: Program) -> ExportedProgram:
    dims = {
        size: Dim(size, min=1, max=program.limits.get(size))
        for size in program.sizes
    }

    def shapes(axes: Any) -> Any:
        if isinstance(axes, tuple):
            return tuple(shapes(part) for part in axes)
        return {axis: dims[size] for axis, size in axes.items()}

    try:
        # only strict mode keeps Python's len() of a state dynamic
        return torch.export.export(
            program.module,
            program.draw(**program.sizes),
            dynamic_shapes=shapes(program.axes),
            strict=True,
        )
    finally:
        torch._dynamo.reset()


@dataclass(frozen=True)
class Parity:
    """Difference between a file and its model."""

    #: Largest absolute difference, over all outputs and sizes.
    difference: float
    #: Largest difference relative to the largest value of an output.
    relative: float
    #: Sizes that were compared.
    sizes: list[dict[str, int]]


def check_parity(
    program: Program,
    run: Callable[[tuple[Any, ...]], Sequence[Tensor]],
    tolerance: float,
) -> Parity:
    """Compare a file with its model on random inputs of several sizes.

    ``tolerance`` is relative to the largest value of an output.
    """
    difference = relative = 0.0
    all_sizes = [dict(x) for x in (program.sizes, *program.other_sizes)]
    for sizes in all_sizes:
        arguments = program.draw(**sizes)
        for name, wanted, got in zip(
            program.output_names,
            program.run(arguments),
            run(arguments),
            strict=True,
        ):
            if wanted.shape != got.shape:
                raise ValueError(
                    f"{program.name}: the output '{name}' of the model has "
                    f'shape {tuple(wanted.shape)} at {sizes}, but that of the '
                    f'file {tuple(got.shape)}. Nothing was written.'
                )
            distance, scale = _compare(wanted, got)
            share = distance / max(scale, _SMALLEST_SCALE)
            if not share <= tolerance:  # also true for NaN
                raise ValueError(
                    f"{program.name}: the output '{name}' of the file differs "
                    f'by {distance:.2e} from that of the model, whose largest '
                    f'value is {scale:.2e}, at {sizes}; the relative '
                    f'tolerance is {tolerance:g}. Nothing was written. Raise '
                    'the tolerance if this is accurate enough for you.'
                )
            difference = max(difference, distance)
            relative = max(relative, share)
    return Parity(difference, relative, all_sizes)


def _compare(wanted: Tensor, got: Tensor) -> tuple[float, float]:
    """Largest difference, and largest finite magnitude of the model."""
    wanted, got = wanted.double().cpu(), got.double().cpu()
    # equal infinities, as in masked logits, do not differ
    distance = torch.where(wanted == got, 0.0, (wanted - got).abs())
    finite = wanted[wanted.isfinite()].abs()
    return (
        float(distance.max()) if distance.numel() else 0.0,
        float(finite.max()) if finite.numel() else 0.0,
    )
