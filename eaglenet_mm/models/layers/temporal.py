"""Temporal parts: frames that know of each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.precision import float32_layer_norm
from eaglenet_mm.registry import MODELS

#: What the releases add to the logits of keys that are masked.
MASKED = -1e6


def quick_gelu(x: Tensor) -> Tensor:
    """Approximate GELU as CLIP does."""
    return x * torch.sigmoid(1.702 * x)


class ResidualBlock(nn.Module):
    """Pre-norm block of the temporal and cross transformers of CLIP4Clip.

    ``x = x + MHA(norm1(x))``, ``x = x + W2 QuickGELU(W1 norm2(x))``; norms
    have an epsilon of 1e-12, unlike CLIP's.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-12)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-12)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self.hidden = nn.Linear(embed_dim, 4 * embed_dim)
        self.shrink = nn.Linear(4 * embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        for layer in (self.output, self.hidden, self.shrink):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.qkv, self.output, self.hidden, self.shrink):
            nn.init.zeros_(layer.bias)

    def project(self, x: Tensor) -> Tensor:
        """Compute queries, keys and values, shape ``(..., 3 D)``."""
        return self.qkv(float32_layer_norm(self.norm1, x))

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        key_mask: Tensor,  # (B, N), True where it may be attended to
        qkv: Tensor | None = None,  # of ``project``, where it is known
        num_queries: int | None = None,
    ) -> Tensor:
        """Run the block; gives the first ``num_queries``, or all."""
        qkv = self.project(x) if qkv is None else qkv
        heads = qkv.unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, H, N, D / H)
        x, query = x[:, :num_queries], query[:, :, :num_queries]
        bias = torch.zeros_like(key_mask, dtype=query.dtype)
        lowest = max(MASKED, torch.finfo(query.dtype).min)  # half ends there
        bias = bias.masked_fill(~key_mask, lowest)[:, None, None]
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.expand(-1, -1, query.shape[2], -1),
        )
        x = x + self.output(attended.transpose(1, 2).flatten(-2))
        hidden = self.hidden(float32_layer_norm(self.norm2, x))
        return x + self.shrink(quick_gelu(hidden))


def check_heads(embed_dim: int, num_heads: int | None) -> int:
    """Choose the number of heads: one for each 64 channels."""
    num_heads = max(1, embed_dim // 64) if num_heads is None else num_heads
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(
            f'embed_dim={embed_dim} is no multiple of num_heads={num_heads}. '
            'Choose another num_heads.'
        )
    return num_heads


@MODELS.register_module()
class TemporalTransformer(BaseModule):
    """Transformer over the frames of a video, added to the frames.

    The ``seqTransf`` of `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_,
    which TS2-Net and DRL use too: positions, pre-norm blocks, and the frames
    as they came added to the result. Keys of padded frames are masked.

    Differs from the release: positions and blocks start from random numbers;
    the release copies CLIP's text positions and its first text blocks, which
    the converters of ``tools/model_converters`` do for its checkpoints.

    Args:
        embed_dim (int): Width ``D``.
        num_layers (int): Blocks. Default: 4.
        num_heads (int, optional): Attention heads. Default: None, one for
            each 64 channels.
        max_positions (int): Frames at most. Default: 77.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.

    Raises:
        ValueError: If ``embed_dim`` is no multiple of the heads.

    Example:
        >>> part = TemporalTransformer(embed_dim=32, num_layers=1)
        >>> part(video.frames, video.frame_mask).shape
        torch.Size([4, 8, 32])
    """

    def __init__(
        self,
        embed_dim: int,
        num_layers: int = 4,
        num_heads: int | None = None,
        max_positions: int = 77,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        num_heads = check_heads(embed_dim, num_heads)
        self.max_positions = max_positions
        self.positions = nn.Embedding(max_positions, embed_dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(
            ResidualBlock(embed_dim, num_heads) for _ in range(num_layers)
        )

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Run the frames of each video through the blocks.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor): True for real frames, shape ``(Bv, F)``.

        Returns:
            Tensor: Shape ``(Bv, F, D)``.
        """
        x = frames + self.positions.weight[: frames.shape[1]]
        for block in self.blocks:
            x = block(x, frame_mask)
        return frames + x


@MODELS.register_module()
class TemporalLSTM(BaseModule):
    """One-way LSTM over the frames of a video, added to the frames.

    The ``seqLSTM`` of `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_. Frames
    behind the last real one do not reach those before it.

    Args:
        embed_dim (int): Width ``D``.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.

    Example:
        >>> part = TemporalLSTM(embed_dim=32)
        >>> part(video.frames, video.frame_mask).shape
        torch.Size([4, 8, 32])
    """

    max_positions: int | None = None

    def __init__(self, embed_dim: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.lstm = nn.LSTM(embed_dim, embed_dim, batch_first=True)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Run the frames of each video through the LSTM, in order.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor): True for real frames, shape ``(Bv, F)``.

        Returns:
            Tensor: Shape ``(Bv, F, D)``; padded frames as they came.
        """
        if not len(frames):
            return frames
        output, _ = self.lstm(frames)
        return frames + output * frame_mask.unsqueeze(-1)
