"""What backbones give, pooled to one vector a frame or temporal step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def main_tensor(output: Any) -> Tensor:
    """Choose the tensor of features in the output of a backbone.

    Args:
        output (Tensor or Sequence): A tensor, or nested tuples, lists and
            dicts of tensors: stages, pathways, maps beside class tokens.

    Returns:
        Tensor: The one with most channels, among these the one with most
        axes, among these the last: the deepest stage, the slow pathway, the
        map.

    Raises:
        ValueError: If no tensor has 2 to 5 axes.
    """
    tensors = [x for x in _leaves(output) if 2 <= x.ndim <= 5]
    if not tensors:
        raise ValueError(
            'Expected a backbone to give a tensor of 2 to 5 axes, possibly '
            f'in tuples, but got a {type(output).__name__}. Choose another '
            'backbone or other options of it.'
        )
    best = tensors[0]
    for tensor in tensors[1:]:
        if _rank(tensor) >= _rank(best):
            best = tensor
    return best


def pool_frames(output: Any) -> Tensor:
    """Pool the output for images.

    Args:
        output (Tensor or Sequence): With shapes ``(N, C)``, ``(N, L, C)``
            (tokens) or ``(N, C, h, w)``; see :func:`main_tensor`.

    Returns:
        Tensor: Mean over places or tokens, shape ``(N, C)``.

    Raises:
        ValueError: If the tensor has 5 axes, those of clips.
    """
    feats = main_tensor(output)
    if feats.ndim == 5:
        raise ValueError(
            "layout='frames' expects features of images, (N, C), (N, L, C) "
            f'or (N, C, h, w), but the backbone gives {tuple(feats.shape)}. '
            "Set layout='clip'."
        )
    if feats.ndim == 4:
        return feats.flatten(2).mean(2)  # (N, C)
    return feats.mean(1) if feats.ndim == 3 else feats


def pool_steps(output: Any) -> Tensor:
    """Pool the output for clips.

    Args:
        output (Tensor or Sequence): With shapes ``(B, C)``, ``(B, L, C)``
            (tokens), ``(B, C, h, w)`` or ``(B, C, T, h, w)``; see
            :func:`main_tensor`.

    Returns:
        Tensor: Mean over places or tokens, shape ``(B, T, C)``; where the
        backbone has pooled time, or mixed it with places into tokens, ``T``
        is 1.
    """
    feats = main_tensor(output)
    if feats.ndim == 5:
        return feats.flatten(3).mean(3).transpose(1, 2)  # (B, T, C)
    return pool_frames(feats).unsqueeze(1)  # (B, 1, C)


def pool_mask(frame_mask: Tensor, num_steps: int) -> Tensor:
    """Turn the mask of frames into that of temporal steps.

    Args:
        frame_mask (Tensor): True for real frames, shape ``(B, F)``.
        num_steps (int): Temporal steps ``T``; step ``t`` covers the frames
            ``floor(t F / T)`` to ``ceil((t + 1) F / T) - 1``.

    Returns:
        Tensor: True where a step covers a real frame, bool, shape
        ``(B, T)``.
    """
    return F.adaptive_max_pool1d(frame_mask.float(), num_steps) > 0


def repeat_last_real(pixels: Tensor, frame_mask: Tensor) -> Tensor:
    """Put the last real frame into the places of padding.

    Args:
        pixels (Tensor): Shape ``(B, F, 3, H, W)``.
        frame_mask (Tensor): True for real frames, shape ``(B, F)``.

    Returns:
        Tensor: As ``pixels``; each padded frame is the nearest real one
        before it, or the first frame if there is none.
    """
    places = torch.arange(pixels.shape[1], device=pixels.device)
    # a maximum over the frames so far; of cummax ONNX knows nothing
    real = frame_mask.unsqueeze(1) & (places <= places.unsqueeze(1))
    source = torch.where(real, places, 0).amax(2)  # (B, F)
    rows = torch.arange(len(pixels), device=pixels.device).unsqueeze(1)
    return pixels[rows, source]


def keep_nothing() -> AbstractContextManager:
    """Build a graph that knows its parameters and costs no memory."""
    return torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: None, lambda nothing: nothing
    )


def unused_parameters(output: Tensor, module: nn.Module) -> list[str]:
    """Name the parameters that have no part in an output.

    Args:
        output (Tensor): Computed by the module with gradient.
        module (nn.Module): The module.

    Returns:
        list[str]: Names of parameters that require a gradient and would get
        none; empty where recomputation hides the graph.
    """
    used: set[int] = set()
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if 'CheckpointFunction' in node.name():
            return []
        variable = getattr(node, 'variable', None)
        if variable is not None:
            used.add(id(variable))
        waiting.extend(following for following, _ in node.next_functions)
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in used
    ]


def _rank(tensor: Tensor) -> tuple[int, int]:
    channels = tensor.shape[1 if tensor.ndim > 3 else -1]
    return channels, tensor.ndim


def _leaves(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _leaves(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _leaves(part)


def check_sizes(
    image_size: int | Sequence[int] | None, embed_dim: int | None
) -> None:
    """Refuse sizes of frames and features that cannot be.

    Args:
        image_size (int or Sequence[int], optional): Pixels, or height and
            width.
        embed_dim (int, optional): Width of the features.

    Raises:
        ValueError: If one is not positive, or there are more than two sides.
    """
    sides = [image_size] if isinstance(image_size, int) else image_size or ()
    if len(sides) > 2 or not all(side > 0 for side in sides):
        raise ValueError(
            'image_size must be a number of pixels or height and width, but '
            f'got {image_size}.'
        )
    if embed_dim is not None and embed_dim < 1:
        raise ValueError(
            'embed_dim must be at least 1, or None for no projection, but got '
            f'{embed_dim}.'
        )
