"""Mean pooling of frames, optionally after a temporal module."""

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
    """Cosine similarity of the text and the masked mean of the frames.

    Implements the ``meanP``, ``seqLSTM`` and ``seqTransf`` similarities of
    `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_: frames pass through the
    temporal module, if any, are L2-normalised, averaged over the real ones
    and L2-normalised again. Without temporal module and training this is
    zero-shot CLIP.

    Args:
        temporal (dict, optional): Config of the temporal module:
            ``dict(type='TemporalLSTM', embed_dim=D)`` for seqLSTM,
            ``dict(type='TemporalTransformer', embed_dim=D)`` for seqTransf.
            Default: None, meanP.
        **kwargs: Options of :class:`BasePairHead`.

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
        """Check that the temporal module has a position for each frame."""
        frames = video.frames.shape[1]
        most = None if self.temporal is None else self.temporal.max_positions
        if most is not None and frames > most:
            raise ValueError(
                f'MeanPoolingHead has positions for {most} frames, but '
                f'videos have {frames}. Lower num_frames, or raise '
                'max_positions of its temporal module.'
            )

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """L2-normalise the sentences, shape ``(Bt, D)``."""
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
        """Compute cosine similarities, shape ``(Bt, Bv)``."""
        embeds = text_state.embeds
        with torch.autocast(embeds.device.type, enabled=False):
            return embeds @ video_state.embeds.T
