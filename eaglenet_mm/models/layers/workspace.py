"""Buffers that are taken up again from chunk to chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Memory for tensors that do not outlive a chunk of pairs.

    On a CPU the pages of a fresh tensor cost more to map than a pass over it,
    so chunks of one size take up one another's memory. On a GPU the caching
    allocator of torch does that, and fresh tensors are handed out.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(
        self,
        name: str,
        shape: tuple[int, ...],
        like: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Hand out uninitialised memory.

        Args:
            name (str): What for. The same name hands out the same memory.
            shape (tuple[int, ...]): Shape of the tensor.
            like (Tensor): Gives the device, and the type unless that is given.
            dtype (torch.dtype, optional): Type. Default: that of ``like``.
        """
        dtype = dtype or like.dtype
        if like.device.type != 'cpu':
            return like.new_empty(shape, dtype=dtype)
        size = math.prod(shape)
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=dtype)
            self._buffers[name, dtype] = buffer
        return buffer[:size].view(shape)
