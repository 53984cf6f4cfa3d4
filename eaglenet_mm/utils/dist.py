"""Collective operations with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch import Tensor
from torch.autograd import Function


class _Mapped(Protocol):
    """Tensors of one side, such as features, that a function can transform."""

    def map(self, function: Callable[[Tensor], Tensor], /) -> Any: ...


FeaturesT = TypeVar('FeaturesT', bound=_Mapped)


class _GatherRows(Function):
    """Concatenate rows; backward sums the gradients of all processes.

    ``torch.distributed.nn.functional.all_gather`` is deprecated, and under
    gloo its backward misreads gradients that are not contiguous, such as those
    of a transposed matrix (torch 2.14).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        if dist.get_backend() == 'nccl':
            own = gradient.new_empty(ctx.rows, *gradient.shape[1:])
            dist.reduce_scatter_tensor(own, gradient)
            return own
        # a copy, as autograd may use this gradient elsewhere
        total = gradient.clone()
        dist.all_reduce(total)
        return total[get_rank() * ctx.rows : (get_rank() + 1) * ctx.rows]


class _Sum(Function):
    """Sum over processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate the tensors of all processes along the first axis.

    The backward pass sums the gradients of all processes. With the averaging
    of ``DistributedDataParallel`` the result is the gradient of one process on
    the joint batch.

    ``x`` must have the same shape in every process. Rows are interleaved as
    MMEngine's ``DefaultSampler`` dealt them out (the first of every rank, then
    the second of every rank), so the joint batch has the order of a single
    process.
    """
    world = get_world_size()
    if world == 1:
        return x
    if x.dtype is torch.bool:  # gloo cannot gather bool
        joined = _GatherRows.apply(x.to(torch.uint8).contiguous()).to(x.dtype)
    else:
        joined = _GatherRows.apply(x.contiguous())
    return joined.unflatten(0, (world, -1)).transpose(0, 1).flatten(0, 1)


def gather_features(features: FeaturesT) -> FeaturesT:
    """Join the features of all processes, with gradient."""
    if get_world_size() == 1:
        return features
    return features.map(gather_with_grad)


def sum_with_grad(x: Tensor) -> Tensor:
    """Sum a tensor over the processes, with gradient."""
    return x if get_world_size() == 1 else _Sum.apply(x)


def agree_on_share(
    size: int, fault: str | None, has_ids: bool = False
) -> None:
    """Raise in every process if the batch of any process is wrong.

    If only one raised, the others would wait for it forever.
    """
    shares = [(size, fault, has_ids)]
    if get_world_size() > 1:
        shares = all_gather_object(shares[0])
    sizes = [own for own, _, _ in shares]
    if len(set(sizes)) > 1:
        raise ValueError(
            'Every process must have equally many pairs in a training batch, '
            f'but they have {sizes}, in order of rank. Set drop_last=True in '
            'the dataloader, or round_up=True in the sampler.'
        )
    for rank, (_, found, _) in enumerate(shares):
        if found is not None:
            place = f'Process {rank}: ' if len(shares) > 1 else ''
            raise ValueError(place + found)
    with_ids = [named for _, _, named in shares]
    if len(set(with_ids)) > 1:
        raise ValueError(
            'The videos of a training batch must have a video_id in every '
            f'process or in none, but it is there: {with_ids}, in order of '
            "rank. Give every item of the data set a 'video_id'."
        )


def own_rows(num_rows: int) -> range:
    """Rows of this process in a joint batch of equal shares."""
    return range(get_rank(), num_rows, get_world_size())
