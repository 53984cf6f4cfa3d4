"""Small made rows, by the number of their file."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from eaglenet_mm.search.model_identity import ModelIdentity
from eaglenet_mm.search.records import IndexedFile, Moments
from eaglenet_mm.search.video_index import VideoIndex

MODEL = ModelIdentity('encoders', 'settings', 'frames', 'head')
WIDTH, FRAMES = 8, 3


def make_file(
    number: int,
    *,
    changed: int = 1,
    error: str = '',
    duration: float = 4.0,
    tags: tuple[str, ...] = (),
) -> IndexedFile:
    return IndexedFile(
        f'/videos/{number}.mp4', 100, changed, duration, error, tags
    )


def make_moments(number: int, count: int = 1) -> Moments:
    generator = torch.Generator().manual_seed(number)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    frames = random(count, FRAMES, WIDTH)
    starts = torch.arange(count).double() * 10
    unit = F.normalize(frames, dim=-1)
    return Moments(
        spans=torch.stack([starts, starts + 10], dim=1),
        vectors=F.normalize(unit.mean(dim=1), dim=-1),
        times=starts.float()[:, None] + torch.arange(FRAMES),
        features={
            'frames': frames,
            'frame_mask': torch.ones(count, FRAMES, dtype=torch.bool),
        },
        state={'inner.values': random(count, FRAMES, WIDTH)},
        thumbnails=[f'jpeg {number} {row}'.encode() for row in range(count)],
    )


def make_index(
    where: str | Path = ':memory:', **settings: object
) -> VideoIndex:
    return VideoIndex.create(where, MODEL, make_moments(0), **settings)
