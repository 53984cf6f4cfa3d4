"""A small config of every registered head, for the guards on all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.tiny import (
    FRAMES,
    WIDTH,
    WORDS,
    eaglenet_head,
    random_features,
)

PATCHES = 9
INFO_NCE = dict(type='InfoNCELoss', init_scale=10)
SIZES = dict(embed_dim=WIDTH, num_frames=FRAMES)
TEMPORAL = dict(type='TemporalTransformer', embed_dim=WIDTH, num_layers=2)

#: By name of the class, then of the variant.
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    'EagleNetHead': {'': eaglenet_head(use_frame_mask=True)},
    'MeanPoolingHead': {
        '': dict(),
        'lstm': dict(temporal=dict(type='TemporalLSTM', embed_dim=WIDTH)),
        'transformer': dict(temporal=TEMPORAL),
    },
    'CrossTransformerHead': {'': dict(**SIZES, num_layers=2, num_heads=2)},
    'XPoolHead': {'': dict(embed_dim=WIDTH, num_heads=2)},
    'TMASSHead': {
        '': dict(**SIZES, num_trials=3),
        'normal': dict(
            **SIZES, num_trials=2, prior='normal', prior_std=0.3,
            support_weight=0.0,
        ),
    },
    'TextProxyHead': {
        '': SIZES,
        'linear': dict(**SIZES, dash='linear', num_tokens=2, gamma=0.3),
    },
    'TS2NetHead': {
        '': dict(**SIZES, num_patches=PATCHES, num_samples=20, num_layers=1)
    },
    'WTIHead': {
        '': SIZES,
        'equal weights': dict(**SIZES, interaction='ti', temporal=TEMPORAL),
        'sentence': dict(**SIZES, interaction='dp'),
        'decorrelation': dict(
            **SIZES,
            loss_decorrelation=dict(
                type='ChannelDecorrelationLoss', other_weight=0.1
            ),
        ),
        'sampled decorrelation': dict(
            **SIZES,
            interaction='ti',
            loss_decorrelation=dict(
                type='ChannelDecorrelationLoss',
                pairing='sample',
                loss_weight=1.0,
            ),
        ),
    },
}  # fmt: skip
CASES = [
    (name, variant)
    for name, variants in CONFIGS.items()
    for variant in variants
]


def registered_heads() -> set[str]:
    """Names of the heads in the registry that can be built."""
    return {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type)
        and issubclass(kind, BasePairHead)
        and not kind.__abstractmethods__
        and kind.__module__.startswith('eaglenet_mm.')
    }


def config_of(name: str, variant: str, **overrides: Any) -> dict[str, Any]:
    """Config of a head with a loss."""
    config = dict(type=name, loss_match=INFO_NCE)
    return {**config, **CONFIGS[name][variant], **overrides}


def build(name: str, variant: str, **overrides: Any) -> BasePairHead:
    """Build a head in float64, in evaluation mode."""
    torch.manual_seed(5)
    head = MODELS.build(config_of(name, variant, **overrides))
    with torch.no_grad():
        # projections that start as the identity would hide mistakes
        for parameter in head.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return head.double().eval()


def features(
    texts: int, videos: int, seed: int = 0
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw features with all fields; some words and frames are padding."""
    text, video = random_features(texts, videos, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (texts, WORDS, WIDTH)
    tokens = torch.randn(shape, generator=generator, dtype=torch.float64)
    lengths = 3 + torch.arange(texts) % (WORDS - 2)
    mask = torch.arange(WORDS) < lengths[:, None]
    patches = torch.randn(
        (videos, FRAMES, PATCHES, WIDTH),
        generator=generator,
        dtype=torch.float64,
    )
    return (
        replace(text, tokens=tokens, token_mask=mask),
        replace(video, patches=patches),
    )


def train_once(
    head: Any, count: int = 5
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Losses and gradients of one step, inputs included.

    Features have the type and the device of the head.
    """
    like = next(head.parameters())
    text, video = (side.to(like.device) for side in features(count, count))
    text, video = text.to(like.dtype), video.to(like.dtype)
    text.embeds.requires_grad_()
    video.frames.requires_grad_()
    head.zero_grad()
    head.random_key = getattr(head, 'random_key', torch.zeros(2)).clone()
    losses = head.loss(text, video)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    gradients = {key: value.grad for key, value in head.named_parameters()}
    gradients['text'], gradients['video'] = text.embeds.grad, video.frames.grad
    return losses, gradients
