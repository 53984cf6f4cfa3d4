"""Small made rows, by the number of their file."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from eaglenet_mm.search.model_identity import ModelIdentity
from eaglenet_mm.search.records import IndexedFile, Moments

MODEL = ModelIdentity('weights', 'settings', 'frames')
WIDTH, FRAMES = 8, 3


def make_file(
    number: int, *, changed: int = 1, error: str = ''
) -> IndexedFile:
    return IndexedFile(f'/videos/{number}.mp4', 100, changed, 4.0, error)


def make_moments(number: int, count: int = 1) -> Moments:
    generator = torch.Generator().manual_seed(number)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    frames = F.normalize(random(count, FRAMES, WIDTH), dim=-1)
    starts = torch.arange(count).double() * 10
    return Moments(
        spans=torch.stack([starts, starts + 10], dim=1),
        vectors=F.normalize(frames.mean(dim=1), dim=-1),
        frames=frames,
        frame_times=starts.float()[:, None] + torch.arange(FRAMES),
        state={
            'frames': frames,
            'inner.values': random(count, FRAMES, WIDTH),
            'mask': torch.ones(count, FRAMES, dtype=torch.bool),
        },
        thumbnails=[f'jpeg {number} {row}'.encode() for row in range(count)],
    )
