"""Export of the two encoders to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eaglenet_mm.models.data_preprocessor import (
    CLIP_MEAN,
    CLIP_STD,
    check_statistics,
)
from eaglenet_mm.version import __version__

from .encoder_programs import text_program, video_program, vocab_size
from .exported_file import ExportedFile
from .onnx_file import write_onnx

#: Share of the largest feature that onnxruntime may be off by default.
TOLERANCE = 1e-4


def export_text_encoder(
    encoder: Any, path: str | Path, *, tolerance: float = TOLERANCE
) -> ExportedFile:
    """Write a text encoder as an ONNX file, and check it in onnxruntime.

    The input ``token_ids`` is int64 of shape ``(texts, words)``, the output
    ``embeds`` has the shape ``(texts, D)``; an encoder with
    ``output_tokens=True`` also gives ``tokens``, ``(texts, words, D)``, and
    ``token_mask``. The file computes in float32, whatever the precision of
    the encoder.

    Args:
        encoder (nn.Module): A text encoder of this package.
        path (str or Path): The file to write, usually ``.onnx``.
        tolerance (float): Share of the largest value of an output that an
            element of it may differ. Default: 1e-4.

    Returns:
        ExportedFile: What was written, and how far it is from the encoder.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        OSError: If the folder cannot be written to.
        ValueError: If the encoder cannot be exported, or the file computes
            something else. Then no file is left.
    """
    program = text_program(encoder)
    metadata = dict(
        eaglenet_mm_version=__version__,
        encoder=type(encoder).__name__,
        embed_dim=encoder.embed_dim,
        vocab_size=vocab_size(encoder),
        max_words=encoder.context_length,
    )
    return write_onnx(program, Path(path), metadata, tolerance)


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
    """Write a video encoder as an ONNX file, and check it in onnxruntime.

    Inputs are ``pixels`` of shape ``(videos, frames, 3, H, W)``, normalised
    float32, and ``frame_mask``, bool of shape ``(videos, frames)``. Outputs
    are ``frames``, ``(videos, frames, D)``, and ``feature_mask``, True where
    such a vector is real; where the encoder gives fewer temporal steps than
    frames, both have as many. An encoder with ``output_patches=True`` also
    gives ``patches``, ``(videos, frames, N, D)``. The file computes in
    float32.

    Args:
        encoder (nn.Module): A video encoder of this package.
        path (str or Path): The file to write, usually ``.onnx``.
        num_frames (int): Frames of a video after padding: the number that
            the file takes if the encoder does not take any.
        mean (Sequence[float], optional): Of the pixels, in [0, 1] units.
            Default: None, what the encoder states, or CLIP's.
        std (Sequence[float], optional): Likewise.
        raw_frames (bool): Let the file take uint8 frames and normalise them
            itself; padded frames may then hold anything. Default: False.
        tolerance (float): See :func:`export_text_encoder`.

    Returns:
        ExportedFile: What was written, and how far it is from the encoder.

    Raises:
        ImportError, OSError, ValueError: See :func:`export_text_encoder`.
    """
    mean = mean or getattr(encoder, 'mean', None) or CLIP_MEAN
    std = std or getattr(encoder, 'std', None) or CLIP_STD
    check_statistics(mean, std)
    program = video_program(
        encoder,
        num_frames,
        statistics=(mean, std) if raw_frames else None,
    )
    metadata = dict(
        eaglenet_mm_version=__version__,
        encoder=type(encoder).__name__,
        embed_dim=encoder.embed_dim,
        image_size=list(encoder.image_size),
        num_frames=num_frames,
        mean=[float(x) for x in mean],
        std=[float(x) for x in std],
        normalises=raw_frames,
    )
    return write_onnx(program, Path(path), metadata, tolerance)
