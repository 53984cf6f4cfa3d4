"""Checks and numerics shared by the losses on score matrices."""

import torch
from torch import Tensor


def check_square(scores: Tensor) -> None:
    """Refuse a matrix whose diagonal cannot hold the matching pairs."""
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            'The loss needs a square matrix with the matching pairs on the '
            f'diagonal, but got shape {tuple(scores.shape)}.'
        )


def at_least_float32(x: Tensor) -> Tensor:
    """Lift half-precision numbers, whose range a loss can exceed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
