"""What a head looked at when it scored a pair."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.layers import FramePooling
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import TextFeatures, VideoFeatures


@dataclass
class PairExplanation:
    """Weights behind the scores of ``Bt`` texts and ``Bv`` videos.

    Args:
        frame_weights (dict[str, Tensor]): By name, one weight a frame, each
            of shape ``(Bt, Bv, F)``. ``'cosine'`` holds cosines in [-1, 1];
            all others are shares that sum to 1 over the frames. Frames that
            the head masks have 0.
        text_weights (dict[str, Tensor]): By name, shares of several texts of
            a pair, shape ``(Bt, Bv, K)``, which sum to 1. Default: none.
        enriched (Tensor, optional): The text as the head compares it with
            the video, shape ``(Bt, Bv, D)``.
        pooled (Tensor, optional): The video as it is compared with it, shape
            ``(Bt, Bv, D)``.
    """

    frame_weights: dict[str, Tensor]
    text_weights: dict[str, Tensor] = field(default_factory=dict)
    enriched: Tensor | None = None
    pooled: Tensor | None = None


def frame_cosines(text: TextFeatures, video: VideoFeatures) -> Tensor:
    """Compare every sentence with every frame, as the encoders give them.

    Args:
        text (TextFeatures): Features of ``Bt`` texts.
        video (VideoFeatures): Features of ``Bv`` videos.

    Returns:
        Tensor: Cosines in [-1, 1], 0 for padded frames, float32 or wider,
        shape ``(Bt, Bv, F)``.
    """
    frames = at_least_float32(video.frames)
    with torch.autocast(frames.device.type, enabled=False):
        sentences = F.normalize(at_least_float32(text.embeds), dim=-1)
        frames = F.normalize(frames, dim=-1).to(sentences.dtype)
        cosines = torch.einsum('td,vfd->tvf', sentences, frames)
    return cosines * video.frame_mask


def explain_by_cosines(
    text: TextFeatures, video: VideoFeatures
) -> PairExplanation:
    """Explain a head that has no weights of frames by their cosines.

    Args:
        text (TextFeatures): Features of ``Bt`` texts.
        video (VideoFeatures): Features of ``Bv`` videos.

    Returns:
        PairExplanation: With ``'cosine'`` alone.
    """
    return PairExplanation({'cosine': frame_cosines(text, video)})


def explain_by_attention(
    pooling: FramePooling,
    text: TextFeatures,
    video: VideoFeatures,
    use_frame_mask: bool,
) -> PairExplanation:
    """Explain a head that pools frames by attention of the sentence.

    Args:
        pooling (FramePooling): Of the head.
        text (TextFeatures): Features of ``Bt`` texts.
        video (VideoFeatures): Features of ``Bv`` videos.
        use_frame_mask (bool): Whether the head masks padded frames.

    Returns:
        PairExplanation: With ``'attention'`` and ``'cosine'``.
    """
    frames = pooling.prepare_frames(
        video.frames, video.frame_mask if use_frame_mask else None
    )
    attention = pooling.attention(text.embeds, frames)  # (Bv, Bt, F)
    return PairExplanation(
        {
            'attention': attention.transpose(0, 1),
            'cosine': frame_cosines(text, video),
        }
    )
