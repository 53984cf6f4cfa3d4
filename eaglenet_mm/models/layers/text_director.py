"""The director of TV-ProxyNet: where a text moves for a video."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import PairRandom
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.structures import Features


@dataclass
class DirectorLayerState(Features):
    """What one layer needs of ``Bv`` videos.

    Args:
        keys (Tensor): Keys taken through the query projection, shape
            ``(Bv, M, D)``.
        key_bias (Tensor): Their constant part; minus infinity at masked
            tokens, shape ``(Bv, M)``.
        values (Tensor): Values taken through the output projection, shape
            ``(Bv, M, D)``.
    """

    keys: Tensor
    key_bias: Tensor
    values: Tensor


@dataclass
class ProxyVideoState(Features):
    """What the head needs of ``Bv`` videos.

    Args:
        embeds (Tensor): One vector of unit length a video, ``(Bv, D)``.
        unit_tokens (Tensor): Tokens of unit length, zero where masked, shape
            ``(Bv, M, D)``.
        token_count (Tensor): Tokens that are real, shape ``(Bv,)``.
        layer1 (DirectorLayerState): For the first layer of the director.
        layer2 (DirectorLayerState): For the second.
    """

    embeds: Tensor
    unit_tokens: Tensor
    token_count: Tensor
    layer1: DirectorLayerState
    layer2: DirectorLayerState


class DirectorLayer(nn.Module):
    """Cross attention of one query a pair, and a small MLP.

    ``q = norm1(x); x = q + attention(q, norm2(tokens)); x = norm3(x);
    x = norm4(x + linear2(relu(linear1(x))))``, one head. The residual is the
    normed query. Projections of queries and outputs are folded into the
    tokens, so that a pair costs ``4 M D + 4 D^2`` operations.

    Args:
        embed_dim (int): Width ``D``.
        dropout (float): Rate at four places.
    """

    def __init__(self, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self.linear1 = nn.Linear(embed_dim, embed_dim)
        self.linear2 = nn.Linear(embed_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.norm4 = nn.LayerNorm(embed_dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.output.bias)

    def prepare_tokens(
        self, tokens: Tensor, token_mask: Tensor | None
    ) -> DirectorLayerState:
        """Compute keys and values of every video; see the state."""
        width = tokens.shape[-1]
        query_w, key_w, value_w = self.qkv.weight.chunk(3)
        query_b, key_b, value_b = self.qkv.bias.chunk(3)
        normed = float32_layer_norm(self.norm2, tokens).to(tokens.dtype)
        keys = F.linear(normed, key_w, key_b) / math.sqrt(width)
        bias = keys @ query_b
        if token_mask is not None:
            bias = bias.masked_fill(~token_mask, float('-inf'))
        values = F.linear(
            F.linear(normed, value_w, value_b), self.output.weight
        )
        return DirectorLayerState(keys @ query_w, bias, values)

    def forward(
        self,
        x: Tensor,
        state: DirectorLayerState,
        random: PairRandom | None,
        name: str,
    ) -> Tensor:
        """Move the query of every pair.

        Args:
            x (Tensor): Shape ``(Bv, Bt, D)``, or ``(1, Bt, D)`` for all.
            state (DirectorLayerState): Of :meth:`prepare_tokens`.
            random (PairRandom, optional): Random numbers of the dropout.
            name (str): Of the layer, for these.

        Returns:
            Tensor: Shape ``(Bv, Bt, D)``.
        """

        def drop(values: Tensor, place: str) -> Tensor:
            if random is None:
                return values
            mask = random.dropout_mask(
                f'{name} {place}',
                values.shape[-1],
                rate=self.dropout,
                like=values,
            )
            return values if mask is None else values * mask

        query = float32_layer_norm(self.norm1, x)
        logits = query.to(state.keys.dtype) @ state.keys.transpose(1, 2)
        logits = at_least_float32(logits + state.key_bias.unsqueeze(1))
        weights = drop(logits.softmax(dim=-1), 'attention')
        # the bias of the output is added once, behind weights of any sum
        attended = weights.to(state.values.dtype) @ state.values
        x = query + drop(attended + self.output.bias, 'attended')
        x = float32_layer_norm(self.norm3, x)
        hidden = self.linear1(x.to(self.linear1.weight.dtype)).relu()
        x = x + drop(self.linear2(drop(hidden, 'hidden')), 'output')
        return float32_layer_norm(self.norm4, x)
