"""EagleNet by brute force: every pair expanded, every relation on all nodes.

A plain transcription of the formulas, the yardstick of numbers and of speed.
Weights are a dict under the names of the authors' release.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
MASKED = -1e18


def relation_masks(
    num_frames: int, num_texts: int, device: torch.device | None = None
) -> list[Tensor]:
    """Adjacency of text-text, frame-frame, frame-text, each ``(N, N)``."""
    is_text = torch.arange(num_frames + num_texts, device=device) >= num_frames
    both_text = is_text[:, None] & is_text
    both_frame = ~is_text[:, None] & ~is_text
    return [both_text, both_frame, ~(both_text | both_frame)]


def _sums(left: Tensor, right: Tensor) -> Tensor:
    """Add rows and columns, each ``(P, N, H)``, to ``(P, H, N, N)``."""
    left, right = left.transpose(1, 2), right.transpose(1, 2)
    return left[..., None] + right[..., None, :]


def _attend(
    logits: Tensor, mask: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Messages of values ``(P, N, H, O)``, shape ``(P, H, N, O)``."""
    # float16 holds no such number
    masked = max(MASKED, torch.finfo(logits.dtype).min)
    logits = torch.where(mask, logits, torch.full_like(logits, masked))
    weights = logits.softmax(dim=-1) * mask
    return weights @ values.transpose(1, 2), logits, weights


def rgat(
    nodes: Tensor, weights: Weights, num_frames: int, layers: int,
    heads: int, slope: float, dropout: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Relational graph attention on nodes ``(P, N, D)``.

    Returns the node output and the logits of the last layer, one
    ``(P, H, N, N)`` a relation. With one layer the release uses its second.
    Dropout acts behind the hidden layers.
    """
    pairs, count, width = nodes.shape
    masks = relation_masks(num_frames, count - num_frames, nodes.device)
    names = [1] if layers == 1 else list(range(layers))
    x = nodes
    all_logits: list[Tensor] = []
    for place, layer in enumerate(names):
        last = place == len(names) - 1
        size = width if last else width // heads
        own = x @ weights[f'layers.{layer}.lin_out.weight'].T
        out = own.unsqueeze(1).expand(pairs, heads, count, size)
        all_logits = []
        for relation, mask in enumerate(masks):
            prefix = f'layers.{layer}'
            h = x @ weights[f'{prefix}.lin_rels.{relation}.weight'].T
            h = h.view(pairs, count, heads, size)
            left = h @ weights[f'{prefix}.att_l_rels.{relation}.weight'][0]
            right = h @ weights[f'{prefix}.att_r_rels.{relation}.weight'][0]
            e = F.leaky_relu(_sums(left, right), slope)
            message, logits, _ = _attend(e, mask, h)
            out = out + message
            all_logits.append(logits)
        if last:
            x = out.mean(dim=1)
        else:
            x = out.transpose(1, 2).reshape(pairs, count, width).relu()
            x = F.dropout(x, dropout) if dropout else x
    return x, all_logits


def gat(
    nodes: Tensor, weights: Weights, layers: int, heads: int, slope: float,
    version: int, adjacency: Tensor | None = None, dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Graph attention: node output, last logits and attention weights."""
    pairs, count, width = nodes.shape
    mask = (
        nodes.new_ones(pairs, 1, count, count, dtype=torch.bool)
        if adjacency is None
        else adjacency.bool().unsqueeze(1)
    )
    names = [1] if layers == 1 else list(range(layers))
    x = nodes
    for place, layer in enumerate(names):
        last = place == len(names) - 1
        size = width if last else width // heads
        h = x @ weights[f'layers.{layer}.lin1.weight'].T
        h = h.view(pairs, count, heads, size)
        seen = F.leaky_relu(h, slope) if version == 2 else h
        left = seen @ weights[f'layers.{layer}.att_l.weight'][0]
        right = seen @ weights[f'layers.{layer}.att_r.weight'][0]
        e = _sums(left, right)
        if version == 1:
            e = F.leaky_relu(e, slope)
        out, logits, attention = _attend(e, mask, h)
        if last:
            x = out.mean(dim=1)
        else:
            x = out.transpose(1, 2).reshape(pairs, count, width).relu()
            x = F.dropout(x, dropout) if dropout else x
    return x, logits, attention


def log_radius(text: Tensor, frames: Tensor, weights: Weights) -> Tensor:
    """Radius of pairs, ``(P, D)`` and ``(P, F, D)`` to ``(P, D)``.

    One zero frame leaves the frames of the whole batch as they are.
    """
    unit = text / text.norm(dim=-1, keepdim=True)
    unit_frames = frames / frames.norm(dim=-1, keepdim=True)
    if unit_frames.isnan().any():
        unit_frames = frames
    cosines = torch.einsum('pd,pfd->pf', unit, unit_frames)
    prefix = 'stochastic.std_branch.linear_proj'
    return F.linear(
        cosines, weights[f'{prefix}.weight'], weights[f'{prefix}.bias']
    )


def pool_frames(
    text: Tensor, frames: Tensor, weights: Weights, heads: int,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Pool frames ``(Bv, F, D)`` for texts ``(Bt, Bv, D)``.

    Keys and values are computed once a video, as in the release, queries
    and all that follows once a pair. Returns ``(Bv, Bt, D)``.
    """
    width = frames.shape[-1]

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(
            x,
            weights[f'pool_frames.{name}.weight'],
            weights[f'pool_frames.{name}.bias'],
        )

    def norm(index: int, x: Tensor) -> Tensor:
        name = f'pool_frames.layer_norm{index}'
        return F.layer_norm(
            x, (width,), weights[f'{name}.weight'], weights[f'{name}.bias']
        )

    def split(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    u = norm(1, frames)
    q = split(linear('cross_attn.q_proj', norm(1, text.transpose(0, 1))))
    k = split(linear('cross_attn.k_proj', u))  # (Bv, H, F, O)
    v = split(linear('cross_attn.v_proj', u))
    logits = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
    out = logits.softmax(dim=-1) @ v  # (Bv, H, Bt, O)
    out = out.transpose(1, 2).flatten(2)  # (Bv, Bt, D)
    a = norm(2, linear('cross_attn.out_proj', out))
    change = linear('linear_proj', a)
    return norm(3, a + (F.dropout(change, dropout) if dropout else change))


def score_pairs(
    text: Tensor, video: Tensor, noise: Tensor, weights: Weights,
    graph: str = 'rgat', layers: int = 2, heads: int = 4,
    slope: float = 0.1, version: int = 1, pooling_heads: int = 1,
    graph_dropout: float = 0.0, pooling_dropout: float = 0.0,
) -> dict[str, Tensor]:  # fmt: skip
    """Score all pairs of texts ``(Bt, D)`` and videos ``(Bv, F, D)``.

    Args:
        noise (Tensor): Shape ``(S, Bt * Bv, D)``.

    Returns:
        dict: ``logits (Bt, Bv)``, ``beta (P, T)``, ``t_star (P, D)``,
        ``pooled (P, D)``, ``radius (P, D)``.
    """
    num_texts, num_videos = len(text), len(video)
    num_frames = video.shape[1]
    texts = text.repeat_interleave(num_videos, dim=0)
    videos = video.repeat(num_texts, 1, 1)
    radius = log_radius(texts, videos, weights).exp()
    candidates = torch.cat([texts[None], texts + noise * radius])
    candidates = candidates.transpose(0, 1)  # (P, T, D)
    frames = videos
    if 'frame_pe' in weights:
        frames = frames + weights['frame_pe']
    nodes = torch.cat([frames, candidates], dim=1)
    own = {
        name.removeprefix('gnn.'): weight
        for name, weight in weights.items()
        if name.startswith('gnn.')
    }
    if graph == 'rgat':
        _, by_relation = rgat(
            nodes, own, num_frames, layers, heads, slope, graph_dropout
        )
        logits = by_relation[2]
    else:
        _, logits, _ = gat(
            nodes, own, layers, heads, slope, version, dropout=graph_dropout
        )
    a = logits[:, :, :num_frames, num_frames:].mean(dim=(1, 2))
    beta = a.softmax(dim=-1)
    t_star = (beta.unsqueeze(-1) * candidates).sum(dim=1)
    pooled = pool_frames(
        t_star.view(num_texts, num_videos, -1),
        video,
        weights,
        pooling_heads,
        pooling_dropout,
    )
    pooled = pooled.transpose(0, 1).flatten(0, 1)  # (P, D)
    scores = F.cosine_similarity(t_star, pooled, dim=-1)
    return {
        'logits': scores.view(num_texts, num_videos),
        'beta': beta,
        't_star': t_star,
        'pooled': pooled,
        'radius': radius,
    }


def frame_energies(
    video: Tensor, text: Tensor, weights: Weights, function: str
) -> Tensor:
    """Energies of frames and texts of broadcasting shape ``(..., D)``."""
    if function == 'mlp':
        x = F.linear(
            torch.cat(torch.broadcast_tensors(video, text), dim=-1),
            weights['ebm.energy_net.0.weight'],
            weights['ebm.energy_net.0.bias'],
        ).relu()
        return F.linear(
            x,
            weights['ebm.energy_net.2.weight'],
            weights['ebm.energy_net.2.bias'],
        ).squeeze(-1)
    v, t = F.normalize(video, dim=-1), F.normalize(text, dim=-1)
    if function == 'bilinear':
        t = F.linear(
            t, weights['ebm.energy_net.weight'], weights['ebm.energy_net.bias']
        )
    return -(v * t).sum(dim=-1)


def energy_pairs(
    video: Tensor, text: Tensor, weights: Weights, function: str
) -> Tensor:
    """Energies of frames, all pairs expanded, shape ``(Bt, Bv, F)``."""
    return frame_energies(video, text[:, None, None], weights, function)
