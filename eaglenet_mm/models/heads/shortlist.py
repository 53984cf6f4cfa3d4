"""The cheap first stage: one vector of unit length an item."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import TextFeatures, VideoFeatures


def unit_sentences(text: TextFeatures) -> Tensor:
    """Bring sentences to unit length.

    Args:
        text (TextFeatures): Features of ``Bt`` texts.

    Returns:
        Tensor: Float32 or wider, shape ``(Bt, D)``; zero where a sentence is
        zero.
    """
    return F.normalize(at_least_float32(text.embeds), dim=-1)


def mean_of_unit_frames(video: VideoFeatures) -> Tensor:
    """Average the real frames of each video, each brought to unit length.

    Args:
        video (VideoFeatures): Features of ``Bv`` videos.

    Returns:
        Tensor: The means, brought to unit length again, float32 or wider,
        shape ``(Bv, D)``; zero where a video has no real frame.
    """
    mask = video.frame_mask.unsqueeze(-1)
    # a zero frame has no direction, and in half precision a NaN
    frames = F.normalize(at_least_float32(video.frames), dim=-1)
    frames = frames * mask  # (Bv, F, D)
    mean = frames.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1)
