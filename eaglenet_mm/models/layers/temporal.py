"""Temporal modules over the frames of a video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.precision import float32_layer_norm
from eaglenet_mm.registry import MODELS

#: Logit bias of masked keys in the releases.
MASKED = -1e6


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


class ResidualBlock(nn.Module):
    """Pre-norm transformer block of CLIP4Clip.

    ``x = x + MHA(norm1(x))``, ``x = x + W2 QuickGELU(W1 norm2(x))``. Unlike
    CLIP's, norms have an epsilon of 1e-12.
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
        key_mask: Tensor,  # True for tokens to attend to, (B, N)
        qkv: Tensor | None = None,  # output of ``project``, if known
        num_queries: int | None = None,
    ) -> Tensor:
        """Run the block; returns the first ``num_queries`` tokens, or all."""
        qkv = self.project(x) if qkv is None else qkv
        heads = qkv.unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, H, N, D / H)
        x, query = x[:, :num_queries], query[:, :, :num_queries]
        bias = torch.zeros_like(key_mask, dtype=query.dtype)
        lowest = max(MASKED, torch.finfo(query.dtype).min)  # for float16
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
    """Validate the number of heads, by default one per 64 channels."""
    num_heads = max(1, embed_dim // 64) if num_heads is None else num_heads
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(
            f'embed_dim={embed_dim} must be a multiple of '
            f'num_heads={num_heads}. Change num_heads.'
        )
    return num_heads


@MODELS.register_module()
class TemporalTransformer(BaseModule):
    """Transformer over the frames of a video, with a residual connection.

    The ``seqTransf`` of `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_, also
    used by TS2-Net and DRL: position embeddings and pre-norm blocks, with
    padded frames masked.

    Differs from the release: initialisation is random. The release starts
    from CLIP's text position embeddings and first text blocks; the converters
    in ``tools/model_converters`` do that.

    Args:
        embed_dim (int): Feature width ``D``.
        num_layers (int): Transformer blocks. Default: 4.
        num_heads (int, optional): Attention heads. Default: None, one per 64
            channels.
        max_positions (int): Maximum number of frames. Default: 77.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

    Raises:
        ValueError: If ``embed_dim`` is not a multiple of ``num_heads``.

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
        """Transform frames ``(Bv, F, D)``, given a mask ``(Bv, F)``."""
        x = frames + self.positions.weight[: frames.shape[1]]
        for block in self.blocks:
            x = block(x, frame_mask)
        return frames + x


@MODELS.register_module()
class TemporalLSTM(BaseModule):
    """Unidirectional LSTM over the frames, with a residual connection.

    The ``seqLSTM`` of `CLIP4Clip <https://arxiv.org/abs/2104.08860>`_.

    Args:
        embed_dim (int): Feature width ``D``.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

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
        """Transform frames ``(Bv, F, D)``, given a mask ``(Bv, F)``.

        Padded frames stay unchanged.
        """
        if not len(frames):
            return frames
        output, _ = self.lstm(frames)
        return frames + output * frame_mask.unsqueeze(-1)
