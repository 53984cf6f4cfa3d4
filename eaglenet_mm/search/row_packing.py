"""Several tensors as one run of bytes a row.

A query reads some hundred rows at random places. What belongs to a row lies
together, so that each costs one access to the disk instead of one a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError

#: Name, type and shape of each tensor of a row, in their order.
Layout = list[tuple[str, str, list[int]]]

_TYPES = {
    str(dtype).removeprefix('torch.'): dtype
    for dtype in (
        torch.bool,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}


def pack_rows(tensors: dict[str, Tensor]) -> tuple[Tensor, Layout]:
    """Put the rows of several tensors side by side.

    Args:
        tensors (dict[str, Tensor]): By name, shape ``(n, ...)``, ``n`` at
            least 1, on the CPU.

    Returns:
        tuple[Tensor, Layout]: Bytes, uint8, shape ``(n, R)``, and what
        :func:`unpack_rows` needs.
    """
    pieces, layout = [], []
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        dtype = str(tensor.dtype).removeprefix('torch.')
        layout.append((name, dtype, list(tensor.shape[1:])))
        rows = len(tensor)
        pieces.append(tensor.flatten().view(torch.uint8).view(rows, -1))
    return torch.cat(pieces, dim=1), layout


def unpack_rows(packed: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Take rows apart again.

    Args:
        packed (Tensor): Uint8, shape ``(n, R)``.
        layout (Layout): Of :func:`pack_rows`.

    Returns:
        dict[str, Tensor]: By name, shape ``(n, ...)``.
    """
    tensors, start = {}, 0
    for name, dtype, shape in layout:
        size = _size(dtype, shape)
        # a copy even of a single row: other types need an aligned beginning
        piece = packed[:, start : start + size].clone(
            memory_format=torch.contiguous_format
        )
        tensors[name] = piece.view(-1).view(_TYPES[dtype]).view(-1, *shape)
        start += size
    return tensors


def check_layout(layout: object, width: int, where: str) -> Layout:
    """Check what a file says of its rows.

    Args:
        layout (object): Of JSON.
        width (int): Bytes ``R`` of a row.
        where (str): The file, for the message.

    Returns:
        Layout: The same.

    Raises:
        DamagedIndexError: If it does not describe rows of that width.
    """
    try:
        checked = [
            (str(name), str(dtype), [int(size) for size in shape])
            for name, dtype, shape in layout  # type: ignore[attr-defined]
        ]
        total = sum(_size(dtype, shape) for _, dtype, shape in checked)
        negative = any(size < 0 for _, _, shape in checked for size in shape)
    except (TypeError, ValueError, KeyError) as err:
        raise DamagedIndexError(
            f'{where}: what it says of its rows is not understood ({err!r}). '
            'Make the index again.'
        ) from err
    if total != width or negative:
        raise DamagedIndexError(
            f'{where}: its rows have {width} bytes, but are said to have '
            f'{total}. Make the index again.'
        )
    return checked


def _size(dtype: str, shape: Sequence[int]) -> int:
    return _TYPES[dtype].itemsize * math.prod(shape)
