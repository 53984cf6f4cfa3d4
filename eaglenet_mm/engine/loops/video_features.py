"""Features of videos: encoded call by call, joined over the processes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from mmengine.dist import all_gather, all_gather_object, get_world_size
from mmengine.runner.amp import autocast
from torch import Tensor

from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import VideoFeatures


class VideoBatches:
    """Encodes videos as they come in, in calls of constant shape."""

    def __init__(self, model: Any, *, fp16: bool, size: int) -> None:
        self.model = model
        self.fp16 = fp16
        self.size = size
        self._pending: list[tuple[Tensor, Tensor]] = []  # pixels, mask
        self._encoded: list[VideoFeatures] = []

    def add(self, pixels: Tensor, mask: Tensor) -> None:
        """Add a video: ``(F, 3, H, W)`` and ``(F,)``."""
        self._pending.append((pixels, mask))
        if len(self._pending) == self.size:
            self._encode()

    def finish(self) -> VideoFeatures | None:
        """Hand out the features of all videos in order; None without any."""
        if self._pending:
            self._encode()
        encoded, self._encoded = self._encoded, []
        return VideoFeatures.cat(encoded) if encoded else None

    def _encode(self) -> None:
        """Encode what is pending, filled up by repetition."""
        waiting, self._pending = self._pending, []
        padded = waiting + waiting[-1:] * (self.size - len(waiting))
        pixels, masks = zip(*padded, strict=True)
        with autocast(enabled=self.fp16):
            features = self.model.encode_video(
                torch.stack(pixels), torch.stack(masks)
            )
        own = features.index_select(slice(len(waiting)))
        self._encoded.append(own.map(at_least_float32))


def gather_rows(rows: Tensor | None, device: torch.device) -> Tensor:
    """Join rows ``(n, ...)`` of all processes, in order of rank.

    Pass None in a process without rows, which does not know their shape.
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
    joined = torch.cat(
        [
            part[:count]
            for part, count in zip(all_gather(padded), counts, strict=True)
        ]
    )
    return joined.to(device=device, dtype=dtype)


def gather_videos(
    own: VideoFeatures | None, device: torch.device
) -> VideoFeatures:
    """Join the video features of all processes, field by field."""
    names = [field.name for field in fields(VideoFeatures)]
    present = [name for name in names if getattr(own, name, None) is not None]
    anywhere = set().union(*all_gather_object(present))
    return VideoFeatures(
        **{
            name: gather_rows(getattr(own, name, None), device)
            for name in names
            if name in anywhere
        }
    )
