"""X-Pool: frames pooled by text-conditioned cross attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import (
    PairExplanation,
    SeededHead,
    frame_cosines,
)
from eaglenet_mm.models.layers import (
    FramePooling,
    PairRandom,
    PooledFramesState,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import EmbedsState, TextFeatures, VideoFeatures


@MODELS.register_module()
class XPoolHead(SeededHead):
    """Cosine similarity of the text and the text-conditioned video.

    Implements `X-Pool <https://arxiv.org/abs/2203.15086>`_: the text, not
    normalised, attends to the frames, and is compared with the result. The
    release trains it with :class:`InfoNCELoss`.

    Differs from the release: keys and values are folded and pairs scored in
    chunks (same numbers); with ``use_frame_mask`` padded frames get no
    attention.

    Args:
        embed_dim (int): Feature width ``D``.
        num_heads (int): Attention heads. Default: 1.
        dropout (float): Dropout rate after the linear layer. Default: 0.3.
        use_frame_mask (bool): Mask padded frames; the release has none, since
            it repeats frames. Default: True.
        **kwargs: Options of :class:`BasePairHead`.

    Example:
        >>> XPoolHead(embed_dim=32)(text, video).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        dropout: float = 0.3,
        use_frame_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim,
            # activations of the pooling, and up to 1.5 D attention weights
            numbers_per_pair=(4 * embed_dim + 4, 8 * embed_dim + 4),
            **kwargs,
        )
        self.use_frame_mask = self.needs_real_frames = use_frame_mask
        self.pooling = FramePooling(embed_dim, num_heads, dropout)

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """Keep the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(text.embeds)

    def prepare_video(self, video: VideoFeatures) -> PooledFramesState:
        """Compute keys and values of the frames."""
        self.check_video(video)
        return self.pooling.prepare_frames(
            video.frames, video.frame_mask if self.use_frame_mask else None
        )

    def score(
        self,
        text_state: EmbedsState,
        video_state: PooledFramesState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Compute cosine similarities, with dropout if ``random``."""
        pooled = self.pooling(text_state.embeds, video_state, random)
        with torch.autocast(pooled.device.type, enabled=False):
            text = at_least_float32(text_state.embeds).to(pooled.dtype)
            return F.cosine_similarity(text, pooled, dim=-1, eps=1e-12).T

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        batch = self.open_batch(text, video)
        return self.match_losses(batch.map(self.score), batch.share)

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Return the attention and cosine similarity of each frame."""
        attention = self.pooling.attention(
            text.embeds, self.prepare_video(video)
        )  # (Bv, Bt, F)
        return PairExplanation(
            {
                'attention': attention.transpose(0, 1),
                'cosine': frame_cosines(text, video),
            }
        )
