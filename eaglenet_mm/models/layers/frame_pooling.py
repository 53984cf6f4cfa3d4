"""Text-conditioned frame pooling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import PairRandom, check_dropout
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.structures import Features


@dataclass
class PooledFramesState(Features):
    """Keys and values of ``Bv`` videos.

    Args:
        keys (Tensor): Keys with the query projection folded in, shape
            ``(Bv, H * F, D)``.
        key_bias (Tensor): Contribution of the query bias, minus infinity at
            masked frames, shape ``(Bv, H * F)``.
        values (Tensor): Values with the output projection folded in, shape
            ``(Bv, H * F, D)``.

    Example:
        >>> state = FramePooling(32).prepare_frames(video.frames)
        >>> state.keys.shape, state.key_bias.shape
        (torch.Size([4, 8, 32]), torch.Size([4, 8]))
    """

    keys: Tensor
    key_bias: Tensor
    values: Tensor


class FramePooling(nn.Module):
    """Cross attention from a text to the frames of a video.

    Implements the pooling of `X-Pool <https://arxiv.org/abs/2203.15086>`_,
    optionally with a different text per pair, as in `EagleNet
    <https://arxiv.org/abs/2603.25267>`_::

        q = norm1(text), u = norm1(frames)
        a = norm2(output(attention(query(q), key(u), value(u))))
        pooled = norm3(a + dropout(linear(a)))

    The query projection is folded into the keys and the output projection
    into the values, so a pair costs ``4 H F D + 2 D^2`` operations instead of
    more than ``6 D^2``. All projections are initialised to the identity.

    Args:
        embed_dim (int): Feature width ``D``.
        num_heads (int): Attention heads ``H``. Default: 1.
        dropout (float): Dropout rate after ``linear``. Default: 0.3.

    Raises:
        ValueError: If ``embed_dim`` is not a multiple of ``num_heads``, or
            ``dropout`` is not in [0, 1).

    Example:
        >>> pooling = FramePooling(32)
        >>> frames = pooling.prepare_frames(video.frames, video.frame_mask)
        >>> pooling(text.embeds, frames).shape  # (Bv, Bt, D)
        torch.Size([4, 3, 32])
    """

    def __init__(
        self, embed_dim: int, num_heads: int = 1, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f'embed_dim={embed_dim} must be a multiple of '
                f'num_heads={num_heads} of the pooling. Change num_heads.'
            )
        check_dropout(dropout)
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self.linear = nn.Linear(embed_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        for layer in (
            self.query, self.key, self.value, self.output, self.linear
        ):  # fmt: skip
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None = None
    ) -> PooledFramesState:
        """Compute keys and values of each video.

        Takes frames ``(Bv, F, D)`` and a mask ``(Bv, F)``, True for real
        frames; None means that all are real.
        """
        num_videos, num_frames, width = frames.shape
        heads, head_width = self.num_heads, width // self.num_heads
        normed = float32_layer_norm(self.norm1, frames).to(frames.dtype)
        split = (num_videos, num_frames, heads, head_width)
        keys = self.key(normed).view(split) / math.sqrt(head_width)
        values = self.value(normed).view(split)
        query_weight = self.query.weight.view(heads, head_width, width)
        output_weight = self.output.weight.view(width, heads, head_width)
        folded_keys = torch.einsum('vfhe,hed->vhfd', keys, query_weight)
        key_bias = torch.einsum(
            'vfhe,he->vhf', keys, self.query.bias.view(heads, head_width)
        )
        if frame_mask is not None:
            key_bias = key_bias.masked_fill(
                ~frame_mask.unsqueeze(1), float('-inf')
            )
        folded_values = torch.einsum('vfhe,dhe->vhfd', values, output_weight)
        return PooledFramesState(
            keys=folded_keys.flatten(1, 2),  # (Bv, H * F, D)
            key_bias=key_bias.flatten(1, 2),  # (Bv, H * F)
            values=folded_values.flatten(1, 2),  # (Bv, H * F, D)
        )

    def forward(
        self,
        text: Tensor,
        state: PooledFramesState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Pool each video for each text, shape ``(Bv, Bt, D)``.

        Args:
            text (Tensor): Shape ``(Bt, D)``, or ``(Bv, Bt, D)`` for a
                different text per pair.
            state (PooledFramesState): Output of :meth:`prepare_frames`.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
        """
        # unnamed intermediates are freed at once in evaluation
        a = float32_layer_norm(
            self.norm2, self._attend(text, state) + self.output.bias
        )
        change = self.linear(a.to(self.linear.weight.dtype))  # (Bv, Bt, D)
        if random is not None:
            mask = random.dropout_mask(
                'pooling', a.shape[-1], rate=self.dropout, like=a
            )
            change = change if mask is None else change * mask
        return float32_layer_norm(self.norm3, a + change)

    def attention(self, text: Tensor, state: PooledFramesState) -> Tensor:
        """Compute the attention weights of the frames, ``(Bv, Bt, F)``.

        Same arguments as :meth:`forward`. Weights are averaged over the heads
        and sum to 1 over the frames; float32 or wider.
        """
        return self._weights(text, state).mean(dim=-2)

    def _attend(self, text: Tensor, state: PooledFramesState) -> Tensor:
        """Weighted sum of the values, ``(Bv, Bt, D)``."""
        weights = self._weights(text, state).flatten(-2)  # (Bv, Bt, H * F)
        return torch.bmm(weights.to(state.values.dtype), state.values)

    def _weights(self, text: Tensor, state: PooledFramesState) -> Tensor:
        """Attention weights, ``(Bv, Bt, H, F)``."""
        normed = float32_layer_norm(self.norm1, text).to(state.keys.dtype)
        if normed.dim() == 2:
            normed = normed.expand(len(state.keys), -1, -1)
        logits = torch.baddbmm(
            state.key_bias.unsqueeze(1).to(normed.dtype),
            normed,
            state.keys.transpose(1, 2),
        )  # (Bv, Bt, H * F)
        logits = at_least_float32(logits).unflatten(-1, (self.num_heads, -1))
        return logits.softmax(dim=-1)
