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


def relation_masks(num_frames: int, num_texts: int) -> list[Tensor]:
    """Adjacency of text-text, frame-frame, frame-text, each ``(N, N)``."""
    is_text = torch.arange(num_frames + num_texts) >= num_frames
    both_text = is_text[:, None] & is_text
    both_frame = ~is_text[:, None] & ~is_text
    return [both_text, both_frame, ~(both_text | both_frame)]


def _attend(
    logits: Tensor, mask: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.where(mask, logits, torch.full_like(logits, MASKED))
    weights = logits.softmax(dim=-1) * mask
    return weights @ values, logits, weights


def rgat(
    nodes: Tensor, weights: Weights, num_frames: int, layers: int,
    heads: int, slope: float,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Relational graph attention on nodes ``(P, N, D)``.

    Returns the node output and the logits of the last layer, one
    ``(P, H, N, N)`` a relation. With one layer the release uses its second.
    """
    pairs, count, width = nodes.shape
    masks = relation_masks(num_frames, count - num_frames)
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
            h = h.view(pairs, count, heads, size).transpose(1, 2)
            left = h @ weights[f'{prefix}.att_l_rels.{relation}.weight'][0]
            right = h @ weights[f'{prefix}.att_r_rels.{relation}.weight'][0]
            e = F.leaky_relu(left[..., None] + right[..., None, :], slope)
            message, logits, _ = _attend(e, mask, h)
            out = out + message
            all_logits.append(logits)
        if last:
            x = out.mean(dim=1)
        else:
            x = out.transpose(1, 2).reshape(pairs, count, width).relu()
    return x, all_logits


def gat(
    nodes: Tensor, weights: Weights, layers: int, heads: int, slope: float,
    version: int, adjacency: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Graph attention: node output, last logits and attention weights."""
    pairs, count, width = nodes.shape
    mask = (
        torch.ones(pairs, 1, count, count, dtype=torch.bool)
        if adjacency is None
        else adjacency.bool().unsqueeze(1)
    )
    names = [1] if layers == 1 else list(range(layers))
    x = nodes
    for place, layer in enumerate(names):
        last = place == len(names) - 1
        size = width if last else width // heads
        h = x @ weights[f'layers.{layer}.lin1.weight'].T
        h = h.view(pairs, count, heads, size).transpose(1, 2)
        seen = F.leaky_relu(h, slope) if version == 2 else h
        left = seen @ weights[f'layers.{layer}.att_l.weight'][0]
        right = seen @ weights[f'layers.{layer}.att_r.weight'][0]
        e = left[..., None] + right[..., None, :]
        if version == 1:
            e = F.leaky_relu(e, slope)
        out, logits, attention = _attend(e, mask, h)
        if last:
            x = out.mean(dim=1)
        else:
            x = out.transpose(1, 2).reshape(pairs, count, width).relu()
    return x, logits, attention


def log_radius(text: Tensor, frames: Tensor, weights: Weights) -> Tensor:
    """Radius of pairs, ``(P, D)`` and ``(P, F, D)`` to ``(P, D)``."""
    unit = text / text.norm(dim=-1, keepdim=True)
    frames = frames / frames.norm(dim=-1, keepdim=True)
    cosines = torch.einsum('pd,pfd->pf', unit, frames)
    prefix = 'stochastic.std_branch.linear_proj'
    return F.linear(
        cosines, weights[f'{prefix}.weight'], weights[f'{prefix}.bias']
    )


def pool_frames(
    text: Tensor, frames: Tensor, weights: Weights, heads: int
) -> Tensor:
    """Pool frames ``(P, F, D)`` for texts ``(P, D)``."""
    pairs, count, width = frames.shape

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

    size = width // heads
    u = norm(1, frames)
    q = linear('cross_attn.q_proj', norm(1, text)).view(pairs, heads, 1, size)
    k = linear('cross_attn.k_proj', u).view(pairs, count, heads, size)
    v = linear('cross_attn.v_proj', u).view(pairs, count, heads, size)
    logits = q @ k.permute(0, 2, 3, 1) / math.sqrt(size)
    out = logits.softmax(dim=-1) @ v.transpose(1, 2)
    a = norm(2, linear('cross_attn.out_proj', out.reshape(pairs, width)))
    return norm(3, a + linear('linear_proj', a))


def score_pairs(
    text: Tensor, video: Tensor, noise: Tensor, weights: Weights,
    graph: str = 'rgat', layers: int = 2, heads: int = 4,
    slope: float = 0.1, version: int = 1, pooling_heads: int = 1,
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
        logits = rgat(nodes, own, num_frames, layers, heads, slope)[1][2]
    else:
        logits = gat(nodes, own, layers, heads, slope, version)[1]
    a = logits[:, :, :num_frames, num_frames:].mean(dim=(1, 2))
    beta = a.softmax(dim=-1)
    t_star = (beta.unsqueeze(-1) * candidates).sum(dim=1)
    pooled = pool_frames(t_star, videos, weights, pooling_heads)
    scores = F.cosine_similarity(t_star, pooled, dim=-1)
    return {
        'logits': scores.view(num_texts, num_videos),
        'beta': beta,
        't_star': t_star,
        'pooled': pooled,
        'radius': radius,
    }


def energy_pairs(
    video: Tensor, text: Tensor, weights: Weights, function: str
) -> Tensor:
    """Energies of frames, all pairs expanded, shape ``(Bt, Bv, F)``."""
    shape = (len(text), *video.shape)
    v = video.expand(shape)
    t = text[:, None, None].expand(shape)
    if function == 'mlp':
        x = F.linear(
            torch.cat([v, t], dim=-1),
            weights['ebm.energy_net.0.weight'],
            weights['ebm.energy_net.0.bias'],
        ).relu()
        return F.linear(
            x,
            weights['ebm.energy_net.2.weight'],
            weights['ebm.energy_net.2.bias'],
        ).squeeze(-1)
    v, t = F.normalize(v, dim=-1), F.normalize(t, dim=-1)
    if function == 'bilinear':
        t = F.linear(
            t, weights['ebm.energy_net.weight'], weights['ebm.energy_net.bias']
        )
    return -(v * t).sum(dim=-1)
