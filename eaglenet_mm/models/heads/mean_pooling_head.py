"""Mean pooling of frames, as they are or after a temporal part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import (
    BasePairHead,
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import EmbedsState, TextFeatures, VideoFeatures

UnitVectors = EmbedsState  # deprecated name


@MODELS.register_module()
class MeanPoolingHead(BasePairHead):
    """Cosine of the text and the masked mean of the frames.

    Implements the ``meanP``, ``seqLSTM`` and ``seqTransf`` similarities of
    `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_: frames, after a temporal
    part if there is one, are brought to unit length, averaged over the real
    ones, and brought to unit length again. With pretrained encoders, no
    temporal part and no training this is zero-shot CLIP.

    Args:
        temporal (dict, optional): Config of the temporal part:
            ``dict(type='TemporalLSTM', embed_dim=D)`` for seqLSTM,
            ``dict(type='TemporalTransformer', embed_dim=D)`` for seqTransf.
            Default: None, meanP.
        **kwargs: Of :class:`BasePairHead`: ``loss_match``, ``memory_budget``
            and ``init_cfg``.

    Example:
        >>> MeanPoolingHead()(text, video).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        temporal: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(numbers_per_pair=(1, 1), **kwargs)
        self.temporal = None if temporal is None else MODELS.build(temporal)
        self.keeps_state = self.temporal is not None

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse more frames than the temporal part has positions for."""
        frames = video.frames.shape[1]
        most = None if self.temporal is None else self.temporal.max_positions
        if most is not None and frames > most:
            raise ValueError(
                f'MeanPoolingHead has positions for {most} frames, but '
                f'videos have {frames}. Lower num_frames, or raise '
                'max_positions of its temporal part.'
            )

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """Bring sentences to unit length, shape ``(Bt, D)``."""
        return EmbedsState(unit_sentences(text))

    def prepare_video(self, video: VideoFeatures) -> EmbedsState:
        """Average the real frames of each video, shape ``(Bv, D)``."""
        self.check_video(video)
        if self.temporal is not None:
            frames = self.temporal(video.frames, video.frame_mask)
            video = replace(video, frames=frames)
        return EmbedsState(mean_of_unit_frames(video))

    def score(
        self, text_state: EmbedsState, video_state: EmbedsState
    ) -> Tensor:
        """Compute cosines, shape ``(Bt, Bv)``, in [-1, 1]."""
        embeds = text_state.embeds
        with torch.autocast(embeds.device.type, enabled=False):
            return embeds @ video_state.embeds.T
