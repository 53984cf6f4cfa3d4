"""Tiny models the tests share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.structures import TextFeatures, VideoFeatures

FRAMES, WIDTH, WORDS, VOCABULARY = 3, 16, 8, 20

TEXT_ENCODER = dict(
    type='CLIPTextEncoder',
    arch=dict(
        embed_dim=WIDTH,
        quick_gelu=True,
        text_cfg=dict(
            context_length=WORDS,
            vocab_size=VOCABULARY,
            width=16,
            heads=2,
            layers=1,
        ),
    ),
    max_words=WORDS,
)
VIDEO_ENCODER = dict(
    type='CLIPVideoEncoder',
    arch=dict(
        embed_dim=WIDTH,
        quick_gelu=True,
        vision_cfg=dict(
            layers=2, width=16, head_width=8, patch_size=4, image_size=12
        ),
    ),
    shift_layers=(1,),
)


def nightly(*values: Any) -> Any:
    """Mark a case of a parameter to run with ``--all`` alone."""
    return pytest.param(*values, marks=pytest.mark.nightly)


def eaglenet_head(**overrides: Any) -> dict:
    """Config of a small EagleNet head with everything in use."""
    return {
        **dict(
            type='EagleNetHead',
            embed_dim=WIDTH,
            num_frames=FRAMES,
            num_candidates=4,
            frame_embedding=True,
            loss_match=dict(type='PairwiseSigmoidLoss'),
            loss_energy=dict(
                type='EnergyMatchingLoss',
                sampler=dict(num_steps=3, buffer_size=6),
            ),
            energy_support_weight=1.0,
        ),
        **overrides,
    }


def tiny_retriever(head: dict | None = None) -> TextVideoRetriever:
    """Build a retriever with towers of one and two layers."""
    kind = (head or {}).get('type')
    return TextVideoRetriever(
        text_encoder=dict(TEXT_ENCODER, output_tokens=kind == 'WTIHead'),
        video_encoder=dict(VIDEO_ENCODER, output_patches=kind == 'TS2NetHead'),
        head=head or eaglenet_head(),
        data_preprocessor=dict(
            type='RetrievalDataPreprocessor', num_frames=FRAMES
        ),
    )


def tiny_inputs(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Make a preprocessed batch of ``count`` pairs."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY - 2, (count, WORDS), generator=generator)
    ids[:, 0], ids[:, -1] = VOCABULARY - 2, VOCABULARY - 1
    mask = torch.ones(count, FRAMES, dtype=torch.bool)
    mask[1::2, -1] = False
    pixels = torch.randn(count, FRAMES, 3, 12, 12, generator=generator)
    return dict(
        pixels=pixels * mask[:, :, None, None, None],
        frame_mask=mask,
        token_ids=ids,
        caption_counts=torch.ones(count, dtype=torch.int64),
    )


def random_features(
    texts: int,
    videos: int,
    *,
    frames: int = FRAMES,
    width: int = WIDTH,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw features; every second video has a padded last frame."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(videos, frames, dtype=torch.bool)
    mask[1::2, -1] = False
    return (
        TextFeatures(torch.randn(texts, width, generator=generator).to(dtype)),
        VideoFeatures(
            torch.randn(videos, frames, width, generator=generator).to(dtype),
            mask,
        ),
    )
