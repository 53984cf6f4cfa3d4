"""Export of the encoders to ONNX."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.export.exported_file import ExportedFile, write_program
from eaglenet_mm.export.program import Program
from eaglenet_mm.models.data_preprocessor import (
    CLIP_MEAN,
    CLIP_STD,
    check_statistics,
)

#: Default tolerance for onnxruntime, relative to the largest feature.
TOLERANCE = 1e-4
# Number of words where the encoder has no limit.
_EXAMPLE_WORDS = 32

Statistics = tuple[Sequence[float], Sequence[float]]


def export_text_encoder(
    encoder: Any, path: str | Path, *, tolerance: float = TOLERANCE
) -> ExportedFile:
    """Export a text encoder to ONNX, and verify it with onnxruntime.

    The input ``token_ids`` is int64 of shape ``(texts, words)``, the output
    ``embeds`` has shape ``(texts, D)``. With ``output_tokens=True`` there are
    also ``tokens``, ``(texts, words, D)``, and ``token_mask``. The file
    computes in float32, whatever the precision of the encoder.

    Args:
        encoder (nn.Module): A text encoder of this package.
        path (str or Path): Output file, usually ``.onnx``.
        tolerance (float): Maximum error, relative to the largest value of an
            output. Default: 1e-4.

    Returns:
        ExportedFile: Description of the file, including its error.

    Raises:
        ImportError: If onnx or onnxscript is not installed. Without
            onnxruntime, the file is written unverified, with a warning.
        OSError: If the folder is not writable.
        ValueError: If the encoder cannot be exported, or the file exceeds the
            tolerance. No file is left then.
    """
    metadata = dict(
        encoder=type(encoder).__name__,
        embed_dim=encoder.embed_dim,
        vocab_size=_vocab_size(encoder),
        max_words=encoder.context_length,
    )
    return write_program(
        text_program(encoder), Path(path), 'onnx', metadata, tolerance
    )


def export_video_encoder(
    encoder: Any,
    path: str | Path,
    *,
    num_frames: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    raw_frames: bool = False,
    tolerance: float = TOLERANCE,
) -> ExportedFile:
    """Export a video encoder to ONNX, and verify it with onnxruntime.

    Inputs are ``pixels`` of shape ``(videos, frames, 3, H, W)``, normalised
    float32, and ``frame_mask``, bool of shape ``(videos, frames)``. Outputs
    are ``frames``, ``(videos, frames, D)``, and ``feature_mask``, True for
    real frames; both are shorter if the encoder reduces the frame rate.
    With ``output_patches=True`` there are also ``patches``, ``(videos,
    frames, N, D)``. The file computes in float32.

    Args:
        encoder (nn.Module): A video encoder of this package.
        path (str or Path): Output file, usually ``.onnx``.
        num_frames (int): Frames per video after padding, used if the encoder
            needs a fixed number.
        mean (Sequence[float], optional): Pixel mean, in [0, 1] units.
            Default: None, that of the encoder, or CLIP's.
        std (Sequence[float], optional): Pixel standard deviation. Default:
            None, likewise.
        raw_frames (bool): Whether the file takes uint8 frames and normalises
            them itself; padded frames may then have any content. Default:
            False.
        tolerance (float): See :func:`export_text_encoder`. Default: 1e-4.

    Returns:
        ExportedFile: Description of the file, including its error.

    Raises:
        ImportError, OSError, ValueError: See :func:`export_text_encoder`.
    """
    mean = mean or getattr(encoder, 'mean', None) or CLIP_MEAN
    std = std or getattr(encoder, 'std', None) or CLIP_STD
    check_statistics(mean, std)
    metadata = dict(
        encoder=type(encoder).__name__,
        embed_dim=encoder.embed_dim,
        image_size=list(encoder.image_size),
        num_frames=num_frames,
        mean=[float(x) for x in mean],
        std=[float(x) for x in std],
        normalises=raw_frames,
    )
    program = video_program(
        encoder, num_frames, (mean, std) if raw_frames else None
    )
    return write_program(program, Path(path), 'onnx', metadata, tolerance)


class _TextModule(nn.Module):
    """Text encoder with tensors as input and outputs."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, token_ids: Tensor) -> tuple[Tensor, ...]:
        text = self.encoder(token_ids)
        parts = (text.embeds, text.tokens, text.token_mask)
        return tuple(x for x in parts if x is not None)


class _VideoModule(nn.Module):
    """Video encoder with tensors as inputs and outputs.

    With ``statistics``, pixels are raw and normalised as by the data
    preprocessor, with zeros for padded frames.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: nn.Module, statistics: Statistics | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.is_raw = statistics is not None
        if statistics is not None:
            numbers = torch.tensor(statistics, dtype=torch.float32)
            mean, std = numbers.view(2, 3, 1, 1)
            self.register_buffer('mean', mean)
            self.register_buffer('std', std)

    def forward(
        self, pixels: Tensor, frame_mask: Tensor
    ) -> tuple[Tensor, ...]:
        if self.is_raw:
            normalised = (pixels.float() / 255 - self.mean) / self.std
            is_real = frame_mask[:, :, None, None, None]
            pixels = torch.where(is_real, normalised, 0.0)
        video = self.encoder(pixels, frame_mask)
        # outputs must not be inputs
        mask = video.frame_mask.clone()
        if video.patches is None:
            return video.frames, mask
        return video.frames, mask, video.patches


def text_program(encoder: Any) -> Program:
    """Describe a text encoder as a program, with random inputs."""
    module = _TextModule(_for_export(encoder))
    length = encoder.context_length or _EXAMPLE_WORDS
    vocabulary = _vocab_size(encoder)
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
    encoder: Any, num_frames: int, statistics: Statistics | None = None
) -> Program:
    """Describe a video encoder as a program, with random inputs.

    With ``statistics``, mean and standard deviation, it takes raw frames.
    """
    fixed = getattr(encoder, 'num_input_frames', None)
    if fixed is not None and fixed != num_frames:
        raise ValueError(
            f'The video encoder takes {fixed} frames, but num_frames='
            f'{num_frames}. Set num_frames={fixed}.'
        )
    encoder = _for_export(encoder)
    module = _VideoModule(encoder, statistics)
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
    """Copy an encoder to the CPU, in float32 and evaluation mode."""
    encoder = copy.deepcopy(encoder).cpu().float().eval()
    for part in encoder.modules():
        # fused attention of transformers omits the mask if the example needs
        # none, which the trace would fix for all sizes
        choose = getattr(part, 'set_attn_implementation', None)
        if choose is not None:
            choose('eager')
    return encoder.requires_grad_(False)


def _vocab_size(encoder: Any) -> int:
    stated = getattr(encoder, 'vocab_size', None)
    return encoder.tower.vocab_size if stated is None else stated


def _generator(*seed: int) -> torch.Generator:
    """Return a random generator specific to the sizes."""
    return torch.Generator().manual_seed(hash(seed) % 2**31)
