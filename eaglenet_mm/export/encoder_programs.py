"""Encoders as programs, with random inputs to check them on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .encoder_modules import RawVideoModule, TextModule, VideoModule
from .program import Program

#: Words of a sentence where the encoder has no limit.
EXAMPLE_WORDS = 32


def text_program(encoder: Any) -> Program:
    """Describe a text encoder for its export.

    Args:
        encoder (nn.Module): A text encoder of this package.

    Returns:
        Program: Ready to be exported.
    """
    module = TextModule(_for_export(encoder))
    length = encoder.context_length or EXAMPLE_WORDS
    vocabulary = vocab_size(encoder)
    pad_id = getattr(encoder, 'pad_id', 0)

    def draw(texts: int, words: int) -> tuple[Tensor, ...]:
        generator = _generator(texts, words)
        ids = torch.randint(vocabulary, (texts, words), generator=generator)
        ends = torch.randint(1, words + 1, (texts, 1), generator=generator)
        return (torch.where(torch.arange(words) < ends, ids, pad_id),)

    outputs = len(module(*draw(texts=1, words=length)))
    return Program(
        name='text_encoder',
        module=module,
        input_names=['token_ids'],
        output_names=['embeds', 'tokens', 'token_mask'][:outputs],
        axes=({0: 'texts', 1: 'words'},),
        draw=draw,
        sizes=dict(texts=2, words=max(2, min(5, length - 1))),
        other_sizes=[
            dict(texts=1, words=length),
            dict(texts=7, words=length),
            dict(texts=3, words=1),
        ],
        optional=dict(words=length),
        limits={} if encoder.context_length is None else dict(words=length),
    )


def video_program(
    encoder: Any,
    num_frames: int,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Program:
    """Describe a video encoder for its export.

    Args:
        encoder (nn.Module): A video encoder of this package.
        num_frames (int): Frames of a video after padding.
        statistics (tuple, optional): Mean and deviation of the pixels, for
            raw frames. Default: None, frames come normalised.

    Returns:
        Program: Ready to be exported.

    Raises:
        ValueError: If the encoder takes another number of frames.
    """
    fixed = getattr(encoder, 'num_input_frames', None)
    if fixed is not None and fixed != num_frames:
        raise ValueError(
            f'The video encoder takes {fixed} frames, but num_frames='
            f'{num_frames}. Set num_frames={fixed}.'
        )
    encoder = _for_export(encoder)
    module: VideoModule
    if statistics is None:
        module = VideoModule(encoder)
    else:
        module = RawVideoModule(encoder, *statistics)
    height, width = encoder.image_size

    def draw(videos: int, frames: int) -> tuple[Tensor, ...]:
        generator = _generator(videos, frames)
        shape = (videos, frames, 3, height, width)
        counts = torch.randint(1, frames + 1, (videos, 1), generator=generator)
        mask = torch.arange(frames) < counts  # (videos, frames)
        if statistics is not None:
            raw = torch.randint(256, shape, generator=generator)
            return raw.to(torch.uint8), mask
        pixels = torch.randn(shape, generator=generator)
        return pixels * mask[:, :, None, None, None], mask

    outputs = len(module(*draw(videos=1, frames=num_frames)))
    axes = {0: 'videos', 1: 'frames'}
    program = Program(
        name='video_encoder',
        module=module,
        input_names=['pixels', 'frame_mask'],
        output_names=['frames', 'feature_mask', 'patches'][:outputs],
        axes=(axes, axes),
        draw=draw,
        sizes=dict(videos=2, frames=3),
        other_sizes=[
            dict(videos=1, frames=num_frames),
            dict(videos=3, frames=num_frames),
            dict(videos=5, frames=1),
        ],
        optional=dict(frames=num_frames),
    )
    return program if fixed is None else program.fix_optional()


def _for_export(encoder: Any) -> Any:
    """Copy an encoder to the CPU, in float32, for inference."""
    encoder = copy.deepcopy(encoder).cpu().float().eval()
    for part in encoder.modules():
        # transformers leaves the mask of fused attention out where the
        # example needs none, which would then hold for all sizes
        choose = getattr(part, 'set_attn_implementation', None)
        if choose is not None:
            choose('eager')
    return encoder.requires_grad_(False)


def vocab_size(encoder: Any) -> int:
    """Tell how many token ids an encoder knows."""
    stated = getattr(encoder, 'vocab_size', None)
    return encoder.tower.vocab_size if stated is None else stated


def _generator(*seed: int) -> torch.Generator:
    """Give random numbers of their own to each size."""
    return torch.Generator().manual_seed(hash(seed) % 2**31)
