"""From a module to the graph of its operations."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.export import Dim, ExportedProgram

from .program import Program

#: What ``torch.export`` raises where it cannot follow; the errors of its
#: tracer are RuntimeErrors.
EXPORT_ERRORS = (AssertionError, RuntimeError, TypeError, ValueError)


@torch.no_grad()
def trace(program: Program) -> tuple[ExportedProgram, Program]:
    """Trace a module by ``torch.export``, with open sizes.

    Args:
        program (Program): In evaluation mode.

    Returns:
        tuple[ExportedProgram, Program]: The graph; and the program, with
        sizes fixed that had to be.

    Raises:
        ValueError: If ``torch.export`` cannot follow the module.
    """
    try:
        return _trace(program), program
    except EXPORT_ERRORS as err:
        reason = f'{type(err).__name__}: {str(err)[:400]}'
        if not program.optional:
            raise ValueError(
                f'torch.export cannot follow {program.name} ({reason}). '
                'Decisions in Python by the values of tensors are what it '
                'cannot follow; use this model from Python.'
            ) from err
    fixed = ', '.join(f'{k}={v}' for k, v in program.optional.items())
    print_log(
        f'{program.name} cannot be exported for any {fixed.partition("=")[0]}'
        f', so the file takes {fixed} alone ({reason}).',
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
        # strict: Python's len() of a state stays open, it does not if the
        # module is simply run
        return torch.export.export(
            program.module,
            program.draw(**program.sizes),
            dynamic_shapes=shapes(program.axes),
            strict=True,
        )
    finally:
        torch._dynamo.reset()


def suited_to_onnx(exported: ExportedProgram) -> ExportedProgram:
    """Replace what torch 2.14 translates to ONNX wrongly, or to slow code.

    ``copy_`` of a smaller tensor repeats it; the translation does not. A
    write to some places of an axis becomes a write of every element by an
    index of its own, which takes several times as long as joining the parts.

    Args:
        exported (ExportedProgram): Of :func:`trace`.

    Returns:
        ExportedProgram: Itself if nothing is written in place, else with
        other operations of the same result.
    """
    aten = torch.ops.aten
    targets = {
        node.target
        for module in exported.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    }
    if not targets & {aten.copy_.default, aten.copy.default}:
        return exported
    return exported.run_decompositions(
        {
            aten.copy.default: _copy,
            aten.select_scatter.default: _select_scatter,
            aten.slice_scatter.default: _slice_scatter,
        }
    )


def _copy(
    target: Tensor, source: Tensor, non_blocking: bool = False
) -> Tensor:
    return source.to(target.dtype).expand(target.shape).clone()


def _select_scatter(
    target: Tensor, source: Tensor, dim: int, index: int
) -> Tensor:
    return _slice_scatter(target, source.unsqueeze(dim), dim, index)


def _slice_scatter(
    target: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    if step != 1:
        return NotImplemented  # torch keeps the operation
    length, first = target.shape[dim], start or 0
    first = first + length if first < 0 else first
    behind = first + source.shape[dim]
    parts = [
        target.narrow(dim, 0, first),
        source,
        target.narrow(dim, behind, length - behind),
    ]
    return torch.cat([part for part in parts if part.shape[dim]], dim)
