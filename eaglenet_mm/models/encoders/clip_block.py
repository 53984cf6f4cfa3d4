"""The transformer block of a CLIP tower, with a place for the patch shift."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from .patch_shift import PatchShift


class CLIPAttention(nn.MultiheadAttention):
    """Multi-head self-attention on the parameters of torch's module.

    Names, numbers and the call are those of ``nn.MultiheadAttention``, so
    whatever takes that module (peft's LoRA, a quantiser) takes this one. Two
    things differ. Training and evaluation go one path, instead of the
    module's own fast path in evaluation, and the output projection is
    called, so that a wrapped or replaced one has its effect.

    Args:
        attention (nn.MultiheadAttention): Whose parameters to take over.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        # on this device nothing is drawn, and nothing needs memory
        super().__init__(
            attention.embed_dim,
            attention.num_heads,
            batch_first=True,
            device='meta',
        )
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Let the tokens of an item attend to one another.

        Args:
            query (Tensor): Tokens, shape ``(N, L, C)``.
            key (Tensor): The same tensor.
            value (Tensor): The same tensor.
            need_weights (bool): Must be False.
            attn_mask (Tensor, optional): Of attention without
                ``is_causal``, as torch's. Default: None.
            is_causal (bool): Whether a token sees the tokens up to itself
                only; ``attn_mask`` is not read then.

        Returns:
            tuple[Tensor, None]: Shape ``(N, L, C)``, and no weights.

        Raises:
            ValueError: If keys or values are others than the queries, or
                weights are asked for.
        """
        if key is not query or value is not query or need_weights:
            raise ValueError(
                'CLIPAttention is self-attention without weights: expected '
                'one tensor as query, key and value, and need_weights=False, '
                f'but got {"one tensor" if key is query is value else "more"} '
                f'and need_weights={need_weights}. Use '
                'nn.MultiheadAttention for anything else.'
            )
        num_items, length, width = query.shape
        projected = F.linear(
            query, self.in_proj_weight, self.in_proj_bias
        )  # (N, L, 3 * C)
        queries, keys, values = projected.view(
            num_items, length, 3, self.num_heads, self.head_dim
        ).permute(2, 0, 3, 1, 4)  # each (N, H, L, C / H)
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if is_causal else attn_mask,
            is_causal=is_causal,
        )
        mixed = mixed.transpose(1, 2).reshape(num_items, length, width)
        return self.out_proj(mixed), None  # (N, L, C)


class CLIPBlock(nn.Module):
    """A residual attention block that takes over the parts of open_clip's.

    Parameter names and numbers are those of ``ResidualAttentionBlock``, and
    every part is called, never read, so each may be wrapped or replaced. The
    number of frames is an argument of the call, so the patch shift keeps no
    state between calls and survives recomputation, copies and wrappers.

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
        self.attn: nn.Module = CLIPAttention(block.attn)
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
        """Call the attention as open_clip calls its own, ``(N, L, C)``."""
        options: dict[str, Any] = dict(need_weights=False)
        if self.is_causal:
            options['is_causal'] = True
            if not isinstance(self.attn, CLIPAttention):
                # a wrapper may hand it to torch's module, which wants it
                options['attn_mask'] = _causal_mask(tokens)
        return self.attn(tokens, tokens, tokens, **options)[0]


def _causal_mask(tokens: Tensor) -> Tensor:
    """What is added to the logits of a causal attention, ``(L, L)``."""
    length = tokens.shape[1]
    mask = tokens.new_full((length, length), float('-inf'))
    return mask.triu_(1)
