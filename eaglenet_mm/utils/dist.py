"""Gathering across processes, with the gradient of the joint batch."""

from __future__ import annotations

from typing import TypeVar

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce

from eaglenet_mm.structures import Features

FeaturesT = TypeVar('FeaturesT', bound=Features)


def gather_with_grad(x: Tensor) -> Tensor:
    """Join the tensors of all processes along the first axis.

    The backward pass sums what the processes send back. With the averaging of
    ``DistributedDataParallel`` the gradient is then that of one process on
    the joint batch.

    Args:
        x (Tensor): Of the same shape in every process.

    Returns:
        Tensor: Rows of rank 0, then of rank 1, and so on; ``x`` itself when
        there is one process.
    """
    if get_world_size() == 1:
        return x
    if x.is_floating_point():
        return torch.cat(all_gather(x.contiguous()))
    # gloo and NCCL gather bytes, so masks travel as such
    as_bytes = x.dtype is torch.bool
    own = (x.to(torch.uint8) if as_bytes else x).contiguous()
    parts = [torch.empty_like(own) for _ in range(get_world_size())]
    torch.distributed.all_gather(parts, own)
    joined = torch.cat(parts)
    return joined.to(torch.bool) if as_bytes else joined


def gather_features(features: FeaturesT) -> FeaturesT:
    """Join the features of all processes, with gradient."""
    if get_world_size() == 1:
        return features
    return features.map(gather_with_grad)


def sum_with_grad(x: Tensor) -> Tensor:
    """Sum a tensor over the processes, with gradient."""
    return x if get_world_size() == 1 else all_reduce(x.contiguous())


def own_rows(num_rows: int) -> slice:
    """Rows of this process in a joint batch of equal shares."""
    share = num_rows // get_world_size()
    return slice(get_rank() * share, (get_rank() + 1) * share)
