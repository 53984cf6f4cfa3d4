"""A CLIP model small enough for unit tests, in open_clip's form."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import open_clip
import torch
from torch import Tensor

EMBED_DIM = 16
IMAGE_SIZE = 12
VOCAB_SIZE = 40
CONTEXT_LENGTH = 9
NUM_LAYERS = 3
#: 3 x 3 patches and the class token.
NUM_TOKENS = 10

TINY_ARCH: dict[str, Any] = dict(
    embed_dim=EMBED_DIM,
    quick_gelu=True,
    vision_cfg=dict(
        layers=NUM_LAYERS,
        width=64,
        head_width=64,
        patch_size=4,
        image_size=IMAGE_SIZE,
    ),
    text_cfg=dict(
        context_length=CONTEXT_LENGTH,
        vocab_size=VOCAB_SIZE,
        width=64,
        heads=1,
        layers=2,
    ),
)


def tiny_arch(**changes: Any) -> dict[str, Any]:
    """Copy the architecture; ``vision_cfg__width=8`` changes one entry."""
    arch = copy.deepcopy(TINY_ARCH)
    for key, value in changes.items():
        part, _, name = key.partition('__')
        if name:
            arch[part][name] = value
        else:
            arch[part] = value
    return arch


def reference_clip(**changes: Any) -> torch.nn.Module:
    """open_clip's own model of the same architecture, in eval mode."""
    return open_clip.model.CLIP(**tiny_arch(**changes)).eval()


def openai_archive(path: str, *, half: bool = True) -> dict[str, Tensor]:
    """Write a TorchScript archive in the form of OpenAI's, return weights."""
    model = reference_clip()
    for name, value in dict(
        input_resolution=IMAGE_SIZE,
        context_length=CONTEXT_LENGTH,
        vocab_size=VOCAB_SIZE,
    ).items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    pixels = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # sizes of the example are traced
        traced = torch.jit.trace_module(
            model, {'encode_image': pixels}, check_trace=False
        )
    if half:
        for name, value in traced.named_parameters():
            if value.ndim > 1:
                value.data = value.data.half()
                weights[name] = weights[name].half()
    traced.save(path)
    return weights


def token_ids(lengths: list[int], columns: int = CONTEXT_LENGTH) -> Tensor:
    """Random sentences of the given lengths, end token included."""
    ids = torch.zeros(len(lengths), columns, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(
            1, VOCAB_SIZE - 1, (length - 1,)
        )
        ids[row, length - 1] = VOCAB_SIZE - 1
    return ids


def pixels(num_videos: int = 2, num_frames: int = 3) -> Tensor:
    """Random normalised frames."""
    return torch.randn(num_videos, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)
