"""Encoding of large batches in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.structures.features import FeaturesT


def encode_in_micro_batches(
    encode: Callable[..., FeaturesT], inputs: tuple[Tensor, ...], size: int
) -> FeaturesT:
    """Encode a batch in parts, keeping only inputs and features.

    The backward pass encodes each part again, with the random numbers and
    autocast state of its first forward pass. The result is the gradient of
    the whole batch, and reaches each parameter once, as
    ``DistributedDataParallel`` requires. This is the gradient cache of
    `GradCache <https://arxiv.org/abs/2101.06983>`_, within a single graph.

    ``encode`` maps rows of the inputs to
    :class:`~eaglenet_mm.structures.Features`; ``size`` is the number of rows
    per part. Costs an extra forward pass of the encoder, unless the batch
    fits one part or needs no gradient. Dropout draws its masks part by part.
    """
    count = len(inputs[0])
    if count <= size:
        return encode(*inputs)
    parts = []
    with _uncached_autocast():
        for start in range(0, count, size):
            rows = [x[start : start + size] for x in inputs]
            # nothing is recomputed for a frozen encoder: it has no graph
            parts.append(
                checkpoint(
                    encode, *rows, use_reentrant=False, preserve_rng_state=True
                )
            )
    return type(parts[0]).cat(parts)


@contextmanager
def _uncached_autocast() -> Iterator[None]:
    """Make autocast cast weights in every part.

    With cached casts, the gradients of the parts would be summed in half
    precision instead of the precision of the weights. Recomputed parts
    inherit this setting.
    """
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def check_batch_norm(encoder: nn.Module, name: str) -> None:
    """Raise an error if batch norm would mix the items of a batch."""
    for inner, module in encoder.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            place = f'{name}.{inner}' if inner else name
            raise ValueError(
                f"'{place}' is a {type(module).__name__} in training mode: in "
                'micro-batches it would normalise over a part instead of the '
                'batch, and update its statistics twice per part. Put it '
                'into evaluation mode (norm_eval=True of many backbones), use '
                'another norm, or set encoder_micro_batch=None.'
            )
