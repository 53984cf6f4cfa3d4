"""CLIP4Clip's tight similarity: a joint transformer over text and frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import SeededHead
from eaglenet_mm.models.layers import PairRandom
from eaglenet_mm.models.layers.keyed_random import check_dropout
from eaglenet_mm.models.layers.temporal import (
    ResidualBlock,
    check_heads,
    quick_gelu,
)
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass
class TokenState(Features):
    """Text or frame tokens with position embeddings."""

    tokens: Tensor  # (B, N, D), N = 1 for texts
    mask: Tensor  # True for real tokens, (B, N)


@MODELS.register_module()
class CrossTransformerHead(SeededHead):
    """Score of a transformer over the text and the frames of each pair.

    Implements the ``tightTransf`` similarity of `CLIP4Clip
    <https://arxiv.org/abs/2104.08860>`_: position embeddings, dropout,
    residual blocks, a pooler on the text token and a linear layer. Scores are
    unbounded, and the release applies no temperature: train with
    ``InfoNCELoss(init_scale=1, learnable=False)``.

    Differs from the release: the loss covers the batch of all processes, not
    of one; the last block computes only the text token, and without dropout
    the first block projects texts and frames once instead of once per pair
    (same numbers).

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video, including padding.
        num_layers (int): Transformer blocks. Default: 4.
        num_heads (int, optional): Attention heads. Default: None, one per 64
            channels.
        dropout (float): Dropout rate on the input sequence. Default: 0.1.
        **kwargs: Options of :class:`BasePairHead`.

    Example:
        >>> head = CrossTransformerHead(embed_dim=32, num_frames=8)
        >>> head(text, video).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        num_layers: int = 4,
        num_heads: int | None = None,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        # vectors per token: in evaluation 12 for the MLP of a block and 6 for
        # the residual stream and the first projections; in training 16 for
        # each block
        super().__init__(
            embed_dim=embed_dim,
            num_frames=num_frames,
            numbers_per_pair=(
                (1 + num_frames) * (18 * embed_dim + 8),
                (1 + num_frames) * (16 * num_layers * embed_dim + 8),
            ),
            **kwargs,
        )
        num_heads = check_heads(embed_dim, num_heads)
        if num_layers < 1:
            raise ValueError(
                f'num_layers must be at least 1, but got {num_layers}.'
            )
        check_dropout(dropout)
        self.dropout = dropout
        self.positions = nn.Embedding(1 + num_frames, embed_dim)
        self.blocks = nn.ModuleList(
            ResidualBlock(embed_dim, num_heads) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-12)
        self.pooler = nn.Linear(embed_dim, embed_dim)
        self.similarity = nn.Linear(embed_dim, 1)
        nn.init.normal_(self.positions.weight, std=0.02)
        for layer in (self.pooler, self.similarity):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def prepare_text(self, text: TextFeatures) -> TokenState:
        """Add the first position embedding to each text."""
        self.check_text(text)
        tokens = (text.embeds + self.positions.weight[0]).unsqueeze(1)
        mask = torch.ones(
            tokens.shape[:2], dtype=torch.bool, device=tokens.device
        )
        return TokenState(tokens, mask)

    def prepare_video(self, video: VideoFeatures) -> TokenState:
        """Add the remaining position embeddings to the frames."""
        self.check_video(video)
        frames = video.frames + self.positions.weight[1:]
        return TokenState(frames, video.frame_mask)

    def score(
        self,
        text_state: TokenState,
        video_state: TokenState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Run the transformer on each pair, with dropout if ``random``."""
        num_texts, num_videos = len(text_state), len(video_state)
        x = self._pair(text_state.tokens, video_state.tokens)
        mask = self._pair(text_state.mask, video_state.mask)
        qkv = drop = None
        if random is not None:
            drop = random.dropout_mask(
                'sequence', *x.shape[1:], rate=self.dropout, like=x
            )  # (Bv, Bt, N, D)
        if drop is not None:
            x = x * drop.flatten(0, 1)
        else:
            first: Any = self.blocks[0]
            qkv = self._pair(
                first.project(text_state.tokens),
                first.project(video_state.tokens),
            )
        for place, block in enumerate(self.blocks):
            last = place == len(self.blocks) - 1
            x = block(x, mask, qkv, num_queries=1 if last else None)
            qkv = None
        pooled = quick_gelu(
            self.pooler(float32_layer_norm(self.norm, x[:, 0]))
        )
        scores = self.similarity(pooled).view(num_videos, num_texts)
        return at_least_float32(scores).T

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        batch = self.open_batch(text, video)
        return self.match_losses(batch.map(self.score), batch.share)

    @staticmethod
    def _pair(text: Tensor, video: Tensor) -> Tensor:
        """Prepend each text to each video, ``(Bv * Bt, 1 + F, ...)``."""
        shape = (len(video), len(text))
        return torch.cat(
            [
                text.unsqueeze(0).expand(*shape, *text.shape[1:]),
                video.unsqueeze(1).expand(*shape, *video.shape[1:]),
            ],
            dim=2,
        ).flatten(0, 1)
