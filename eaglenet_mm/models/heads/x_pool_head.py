"""X-Pool: frames pooled by cross attention to the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.explanation import (
    PairExplanation,
    explain_by_attention,
)
from eaglenet_mm.models.heads.head_checks import (
    check_text_sizes,
    check_video_sizes,
)
from eaglenet_mm.models.heads.seeded_head import PairDropoutHead
from eaglenet_mm.models.layers import (
    FramePooling,
    PairRandom,
    PooledFramesState,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass
class SentenceState(Features):
    """Sentences as they leave the encoder.

    Args:
        embeds (Tensor): Shape ``(Bt, D)``.
    """

    embeds: Tensor


@MODELS.register_module()
class XPoolHead(PairDropoutHead):
    """Cosine of a text and the frames of a video, pooled for that text.

    Implements `X-Pool <https://arxiv.org/abs/2203.15086>`_: cross attention
    of the text, as it leaves the encoder, over the frames, then the cosine of
    the two. The release trains it with :class:`InfoNCELoss`.

    Differs from the release: keys and values are folded and pairs scored in
    chunks (same numbers; the release builds all pooled videos at once); with
    ``use_frame_mask`` padded frames are not attended to.

    Args:
        embed_dim (int): Width ``D`` of the features.
        num_heads (int): Heads of the attention. Default: 1.
        dropout (float): Rate behind the linear layer. Default: 0.3.
        use_frame_mask (bool): Leave padded frames out. The release has none,
            it repeats frames. Default: True.
        loss_match (dict, optional): Loss on the scores. Default: None.
        memory_budget (int): See the base class.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        dropout: float = 0.3,
        use_frame_mask: bool = True,
        loss_match: dict | None = None,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_match, memory_budget, init_cfg)
        self.embed_dim = embed_dim
        self.use_frame_mask = use_frame_mask
        self.pooling = FramePooling(embed_dim, num_heads, dropout)

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts of another width."""
        check_text_sizes(self, text, embed_dim=self.embed_dim)

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another width, or without a real frame."""
        check_video_sizes(
            self,
            video,
            embed_dim=self.embed_dim,
            needs_real_frames=self.use_frame_mask,
        )

    def prepare_text(self, text: TextFeatures) -> SentenceState:
        """Keep the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return SentenceState(text.embeds)

    def prepare_video(self, video: VideoFeatures) -> PooledFramesState:
        """Compute keys and values of the frames."""
        self.check_video(video)
        return self.pooling.prepare_frames(
            video.frames, video.frame_mask if self.use_frame_mask else None
        )

    def pool(
        self,
        text_state: SentenceState,
        video_state: PooledFramesState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Pool every video for each text, shape ``(Bv, Bt, D)``."""
        return self.pooling(text_state.embeds, video_state, random)

    def score_pairs(
        self,
        text_state: SentenceState,
        video_state: PooledFramesState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Compute cosines, shape ``(Bt, Bv)``; see the base class."""
        pooled = self.pool(text_state, video_state, random)
        with torch.autocast(pooled.device.type, enabled=False):
            text = at_least_float32(text_state.embeds).to(pooled.dtype)
            return F.cosine_similarity(text, pooled, dim=-1, eps=1e-12).T

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Give the attention of each text to the frames; see there."""
        return explain_by_attention(
            self.pooling, text, video, self.use_frame_mask
        )

    def bytes_per_pair(self, training: bool) -> int:
        """Tell what one pair takes: vectors of the pooling.

        In evaluation for up to ``1.5 D`` attention weights a pair, heads times
        frames.
        """
        vectors = 8 if training else 4
        return 4 * (vectors * self.embed_dim + 4)
