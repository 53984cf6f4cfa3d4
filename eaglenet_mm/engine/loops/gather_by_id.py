"""Join what the processes encoded, in canonical order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from mmengine.dist import all_gather, all_gather_object, get_world_size
from torch import Tensor

from eaglenet_mm.structures import VideoFeatures

Id = TypeVar('Id', int, tuple[int, int])


def order_by_id(ids: Sequence[Id]) -> tuple[list[Id], list[int]]:
    """Find the canonical order of ids that may occur twice.

    Args:
        ids (Sequence[int | tuple]): Ids in the order they came.

    Returns:
        tuple[list, list[int]]: The distinct ids, ascending, and for each its
        first place in ``ids``.
    """
    first: dict[Id, int] = {}
    for place, item in enumerate(ids):
        first.setdefault(item, place)
    ordered = sorted(first)
    return ordered, [first[item] for item in ordered]


def gather_rows(rows: Tensor | None, device: torch.device) -> Tensor:
    """Join rows of all processes, of which each may have any number.

    Args:
        rows (Tensor, optional): Rows of this process, shape ``(n, ...)``, or
            None where it has none and so does not know their shape.
        device (torch.device): Where the result lies.

    Returns:
        Tensor: Rows of rank 0, then of rank 1, and so on.
    """
    if get_world_size() == 1 and rows is not None:
        return rows
    own: Any = None if rows is None else (tuple(rows.shape), rows.dtype)
    shapes = all_gather_object(own)
    counts = [0 if shape is None else shape[0][0] for shape in shapes]
    (_, *tail), dtype = next(shape for shape in shapes if shape is not None)
    # gloo has no collective for bool
    wire_dtype = torch.uint8 if dtype == torch.bool else dtype
    # collectives need equal shapes: pad to the longest, cut off afterwards
    padded = torch.zeros((max(counts), *tail), dtype=wire_dtype, device=device)
    if rows is not None:
        padded[: len(rows)] = rows.to(device=device, dtype=wire_dtype)
    parts = all_gather(padded)
    joined = torch.cat(
        [part[:count] for part, count in zip(parts, counts, strict=True)]
    )
    return joined.to(device=device, dtype=dtype)


def gather_videos(
    own: VideoFeatures | None, device: torch.device
) -> VideoFeatures:
    """Join the features of all processes, rank after rank.

    Args:
        own (VideoFeatures, optional): Of this process, or None where it has
            no video.
        device (torch.device): Where the result lies.

    Returns:
        VideoFeatures: With every field that any process has.
    """
    names = [field.name for field in fields(VideoFeatures)]
    present = [name for name in names if getattr(own, name, None) is not None]
    anywhere = set(flatten(all_gather_object(present)))
    return VideoFeatures(
        **{
            name: gather_rows(getattr(own, name, None), device)
            for name in names
            if name in anywhere
        }
    )


def flatten(parts: Iterable[list]) -> list:
    """Join lists."""
    return [item for part in parts for item in part]
