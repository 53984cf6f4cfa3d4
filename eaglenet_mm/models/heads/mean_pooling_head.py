"""Mean pooling of frames: the parameter-free baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.heads.shortlist import (
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass
class UnitVectors(Features):
    """One vector of unit length an item.

    Args:
        embeds (Tensor): Shape ``(B, D)``.
    """

    embeds: Tensor


@MODELS.register_module()
class MeanPoolingHead(BasePairHead):
    """Cosine of the text and the masked mean of the frames.

    Implements the ``meanP`` similarity of `CLIP4Clip
    <https://arxiv.org/abs/2104.08860>`_: frames are brought to unit length,
    averaged over the real ones, and brought to unit length again. With
    pretrained encoders and no training this is zero-shot CLIP.
    """

    def prepare_text(self, text: TextFeatures) -> UnitVectors:
        """Bring sentences to unit length, shape ``(Bt, D)``."""
        return UnitVectors(unit_sentences(text))

    def prepare_video(self, video: VideoFeatures) -> UnitVectors:
        """Average the real frames of each video, shape ``(Bv, D)``."""
        return UnitVectors(mean_of_unit_frames(video))

    def score(
        self, text_state: UnitVectors, video_state: UnitVectors
    ) -> Tensor:
        """Compute cosines, shape ``(Bt, Bv)``, in [-1, 1]."""
        embeds = text_state.embeds
        with torch.autocast(embeds.device.type, enabled=False):
            return embeds @ video_state.embeds.T

    def bytes_per_pair(self, training: bool) -> int:
        """Tell the size of a score."""
        return 4
