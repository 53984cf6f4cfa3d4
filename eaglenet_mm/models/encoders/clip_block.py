"""The transformer block of a CLIP tower, with a place for the patch shift."""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from .patch_shift import PatchShift


class CLIPBlock(nn.Module):
    """A residual attention block that takes over the parts of open_clip's.

    Parameter names and numbers are those of ``ResidualAttentionBlock``. Two
    things differ. The number of frames is an argument of the call, so the
    patch shift keeps no state between calls and survives recomputation,
    copies and wrappers. Attention is computed from the projections of
    ``nn.MultiheadAttention`` by one path in training and evaluation, instead
    of the module's own fast path in evaluation, and needs no mask tensor.

    Args:
        block (ResidualAttentionBlock): The block to take the parts of.
        is_causal (bool): Whether a token sees the tokens up to itself only.
        shift (bool): Whether the patch shift is applied to the attention
            input, after the first norm. Defaults to False.
    """

    def __init__(
        self,
        block: ResidualAttentionBlock,
        *,
        is_causal: bool,
        shift: bool = False,
    ) -> None:
        super().__init__()
        self.ln_1 = block.ln_1
        self.attn = block.attn
        self.ls_1 = block.ls_1
        self.ln_2 = block.ln_2
        self.mlp = block.mlp
        self.ls_2 = block.ls_2
        self.is_causal = is_causal
        self.shift = PatchShift() if shift else None

    def forward(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Apply attention and the two-layer network, each with its residual.

        Args:
            tokens (Tensor): Tokens, shape ``(N, L, C)``.
            num_frames (int): Frames of one video; read by the patch shift
                alone. Defaults to 1.

        Returns:
            Tensor: Shape ``(N, L, C)``.
        """
        normed = self.ln_1(tokens)
        if self.shift is not None:
            normed = self.shift(normed, num_frames)
        tokens = tokens + self.ls_1(self._attend(normed))
        return tokens + self.ls_2(self.mlp(self.ln_2(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        """Multi-head self-attention over the tokens."""
        num_items, length, width = tokens.shape
        heads = self.attn.num_heads
        projected = F.linear(
            tokens, self.attn.in_proj_weight, self.attn.in_proj_bias
        )  # (N, L, 3 * C)
        query, key, value = projected.view(
            num_items, length, 3, heads, width // heads
        ).permute(2, 0, 3, 1, 4)  # each (N, H, L, C / H)
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=self.is_causal
        )
        return self.attn.out_proj(
            mixed.transpose(1, 2).reshape(num_items, length, width)
        )  # (N, L, C)
