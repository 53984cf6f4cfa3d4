"""Whether a file computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .program import Program

#: Below this, what the model gives counts as zero.
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Parity:
    """How far a file was from the model.

    Args:
        difference (float): The largest, over all outputs and sizes.
        relative (float): The largest share of the largest value of an
            output.
        sizes (list[dict]): Sizes at which both were run.
    """

    difference: float
    relative: float
    sizes: list[dict[str, int]]


def check_parity(
    program: Program,
    run: Callable[[tuple[Any, ...]], Sequence[Tensor]],
    tolerance: float,
) -> Parity:
    """Run a file and its model on random inputs of several sizes.

    Args:
        program (Program): With the model.
        run (Callable): Runs the file on arguments of the model.
        tolerance (float): Share of the largest value of an output that an
            element of it may be off.

    Returns:
        Parity: What was measured.

    Raises:
        ValueError: If an output has another shape, or is farther off.
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
                    f'the shape {tuple(wanted.shape)} at {sizes}, but the '
                    f'file gives {tuple(got.shape)}. Nothing was written.'
                )
            distance, scale = _compare(wanted, got)
            share = distance / max(scale, SMALLEST_SCALE)
            if not share <= tolerance:  # also if it is no number
                raise ValueError(
                    f"{program.name}: the output '{name}' of the file is "
                    f'{distance:.2e} from that of the model, whose largest '
                    f'value is {scale:.2e}, at {sizes}; allowed is a share '
                    f'of {tolerance:g}. Nothing was written. Raise the '
                    'tolerance if this is enough for you.'
                )
            difference = max(difference, distance)
            relative = max(relative, share)
    return Parity(difference, relative, all_sizes)


def _compare(wanted: Tensor, got: Tensor) -> tuple[float, float]:
    """Largest difference, and largest finite value of the model."""
    wanted, got = wanted.double().cpu(), got.double().cpu()
    # equal infinities, of masked logits, differ by nothing
    distance = torch.where(wanted == got, 0.0, (wanted - got).abs())
    finite = wanted[wanted.isfinite()]
    if not distance.numel():
        return 0.0, 0.0
    return float(distance.max()), float(finite.abs().max()) if len(
        finite
    ) else 0.0
