"""How exactly an index keeps the numbers of a video."""

from __future__ import annotations

import torch
from torch import Tensor

#: Names of the precisions, the most exact first.
PRECISIONS = ('float32', 'float16', 'int8')

_SCALE = '.scale'  # ends the name of the scales of an int8 tensor


def check_precision(precision: str) -> None:
    """Refuse a precision that does not exist.

    Raises:
        ValueError: If it is none of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision must be one of {", ".join(PRECISIONS)}, but is '
            f'{precision!r}.'
        )


def pack(tensors: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Bring tensors to the precision in which they are kept.

    Only floating tensors are changed. ``'float32'`` keeps them as they are.
    ``'int8'`` keeps each vector (last axis) as whole numbers in [-127, 127]
    and one float32 scale, a second tensor of the same name with ``.scale``.

    Args:
        tensors (dict[str, Tensor]): By name, shape ``(n, ...)``.
        precision (str): One of :data:`PRECISIONS`.

    Returns:
        dict[str, Tensor]: As they are kept.

    Raises:
        ValueError: If the precision is unknown, or a number is beyond what
            float16 can hold.
    """
    check_precision(precision)
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if (
            not tensor.is_floating_point()
            or precision == 'float32'
            or (precision == 'int8' and tensor.ndim < 2)  # no vectors
        ):
            packed[name] = tensor
        elif precision == 'float16':
            packed[name] = to_half(tensor, name)
        else:
            packed.update(_to_int8(tensor, name))
    return packed


def unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring kept tensors back to float32.

    Args:
        tensors (dict[str, Tensor]): Of :func:`pack`.

    Returns:
        dict[str, Tensor]: Floating ones as float32 (float64 stays).
    """
    unpacked = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE):
            continue
        scale = tensors.get(f'{name}{_SCALE}')
        if scale is not None:
            tensor = tensor.float() * scale.unsqueeze(-1)
        elif tensor.dtype == torch.float16:
            tensor = tensor.float()
        unpacked[name] = tensor
    return unpacked


def to_half(tensor: Tensor, name: str) -> Tensor:
    """Round to float16, and refuse what becomes infinite."""
    half = tensor.to(torch.float16)
    if not bool(half.isfinite().all()):
        raise ValueError(
            f"'{name}' reaches {tensor.abs().max().item():.3g}, but float16 "
            "holds 65504 at most. Use precision='int8' or 'float32'."
        )
    return half


def _to_int8(tensor: Tensor, name: str) -> dict[str, Tensor]:
    """Round each vector to whole numbers of its own scale."""
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        raise ValueError(
            f"'{name}' is not finite, so int8 cannot keep it. Use "
            "precision='float32'."
        )
    scale = tensor.abs().amax(dim=-1) / 127  # (n, ...)
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    whole = (tensor / divisor.unsqueeze(-1)).round().to(torch.int8)
    return {name: whole, f'{name}{_SCALE}': scale}
