"""Encode a large batch in parts, on the memory of one part."""

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
    """Encode a batch part by part, and keep the features only.

    The forward pass keeps inputs and features, nothing from within the
    encoder. When the gradient of the features arrives, the backward pass
    encodes each part again, one after the other, under the random numbers
    and the autocast of its first time. The gradient is that of the whole
    batch; it reaches each parameter once, as ``DistributedDataParallel``
    needs it. This is the gradient cache of `GradCache
    <https://arxiv.org/abs/2101.06983>`_, within one graph.

    Args:
        encode (Callable): From rows of the inputs to
            :class:`~eaglenet_mm.structures.Features` of as many rows.
        inputs (tuple[Tensor, ...]): Tensors of ``B`` rows each.
        size (int): Rows encoded at once, at least 1.

    Returns:
        Features: Of ``B`` rows.

    Note:
        Costs one more forward pass of the encoder. A batch of no more than
        ``size`` rows is encoded as always, and so is, part by part, what
        needs no gradient. Dropout draws part by part, so its masks are
        others than those of the whole batch.
    """
    count = len(inputs[0])
    if count <= size:
        return encode(*inputs)
    parts = []
    with _uncached_autocast():
        for start in range(0, count, size):
            rows = [x[start : start + size] for x in inputs]
            # A frozen encoder leaves no graph, so nothing is computed again.
            part = checkpoint(
                encode, *rows, use_reentrant=False, preserve_rng_state=True
            )
            parts.append(part)
    return type(parts[0]).cat(parts)


@contextmanager
def _uncached_autocast() -> Iterator[None]:
    """Cast weights anew in every part.

    A weight that autocast casts once for all parts would add up their
    gradients in half precision; cast by each part, they are added up in the
    precision of the weight. The parts computed again inherit the setting.
    """
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def refuse_batch_norm(encoder: nn.Module, name: str) -> None:
    """Refuse an encoder in which the items of a batch meet."""
    for inner, module in encoder.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            place = f'{name}.{inner}' if inner else name
            raise ValueError(
                f"'{place}' is a {type(module).__name__} in training mode: in "
                'micro-batches it would normalise by the few items of a part '
                'instead of the batch, and update its statistics twice a '
                'part. Put it into evaluation mode (norm_eval=True of many '
                'backbones), choose another norm, or set '
                'encoder_micro_batch=None.'
            )
