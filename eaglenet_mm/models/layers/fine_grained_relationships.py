"""Fine-grained relationship learning, the core of EagleNet."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eaglenet_mm.models.layers.keyed_random import PairRandom
from eaglenet_mm.models.layers.plain_graph import PlainGraph
from eaglenet_mm.models.layers.relational_graph import RelationalGraph
from eaglenet_mm.models.layers.relational_messages import Workspace
from eaglenet_mm.models.layers.stochastic_text import StochasticText
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.utils.type_name import named_class

GRAPHS = {'rgat': RelationalGraph, 'gat': PlainGraph}


class EnrichedText(NamedTuple):
    """Result of :class:`FineGrainedRelationships`, ordered by video."""

    enriched: Tensor  # t* of the paper, (Bv, Bt, D)
    radius: Tensor  # R, the radius of the candidates, (Bv, Bt, D)
    beta: Tensor  # weights of the sentence and its candidates, (Bv, Bt, 1+S)


class FineGrainedRelationships:
    """Fine-grained relationship learning (FRL), section 3.2 of EagleNet.

    For each pair of a sentence ``t`` and the frames ``v`` of a video::

        R    = exp(W_R cos(t, v) + b_R)         radius, in R^D
        c_0  = t,  c_k = t + noise_k * R        candidates, k = 1..S
        a_k  = graph(v, c)                      logits, from the text-frame graph
        beta = softmax(a)                       weights of the candidates
        t*   = sum_k beta_k c_k                 enriched text

    Candidates are never materialised: the graph works on displacements, and
    the enriched text is ``t + R * sum_k beta_k noise_k``. This is not a
    module; its layers belong to the head.

    Args:
        stochastic_text (StochasticText): Computes the radius.
        graph (RelationalGraph | PlainGraph): Computes the logits.

    Example:
        >>> frl = FineGrainedRelationships(
        ...     StochasticText(32, num_frames=8), RelationalGraph(32)
        ... )
        >>> texts = frl.graph.prepare_text(text.embeds)
        >>> frames = frl.graph.prepare_frames(video.frames, None)
        >>> unit_frames = frl.stochastic_text.unit_frames(video.frames)
        >>> enriched, radius, beta = frl(
        ...     text.embeds, unit_frames, texts, frames, torch.rand(20, 32)
        ... )
        >>> enriched.shape, beta.shape
        (torch.Size([4, 3, 32]), torch.Size([4, 3, 21]))
    """  # noqa: E501

    def __init__(
        self,
        stochastic_text: StochasticText,
        graph: RelationalGraph | PlainGraph,
    ) -> None:
        self.stochastic_text = stochastic_text
        self.graph = graph

    def __call__(
        self,
        text: Tensor,
        unit_frames: Tensor,
        text_nodes: Any,
        frame_nodes: Any,
        noise: Tensor,
        *,
        frame_mask: Tensor | None = None,
        folded: Any = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> EnrichedText:
        """Enrich each text for each video.

        Args:
            text (Tensor): Sentences, shape ``(Bt, D)``.
            unit_frames (Tensor): L2-normalised frames, shape ``(Bv, F, D)``.
            text_nodes (Features): Output of the graph's ``prepare_text``.
            frame_nodes (Features): Output of the graph's ``prepare_frames``.
            noise (Tensor): Noise of the candidates, shape ``(S, D)`` for all
                pairs or ``(Bv, Bt, S, D)``.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``. Default: None, all are real.
            folded (optional): Output of the graph's ``fold``, to share
                between chunks. Default: None.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
            workspace (Workspace, optional): Buffers to share between chunks.
                Default: None.

        Returns:
            EnrichedText: Ordered by video, so that one product with a video
            covers all its texts.
        """
        with torch.autocast(text.device.type, enabled=False):
            sentence = at_least_float32(text)
            radius = self.stochastic_text(
                sentence, at_least_float32(unit_frames)
            ).exp()  # (Bv, Bt, D)
        logits = self.graph(
            noise,
            radius,
            text_nodes,
            frame_nodes,
            folded,
            frame_mask,
            random,
            workspace,
        )
        with torch.autocast(text.device.type, enabled=False):
            beta = logits.softmax(dim=-1)  # (Bv, Bt, 1 + S)
            weights = beta[..., 1:]
            noise = noise.to(weights.dtype)
            if noise.dim() == 2:
                mean = weights @ noise
            else:
                mean = (weights.unsqueeze(2) @ noise).squeeze(2)
            return EnrichedText(sentence + radius * mean, radius, beta)


def build_graph(width: int, **options: Any) -> RelationalGraph | PlainGraph:
    """Build a graph with nodes of this width from a config.

    Args:
        width (int): Width of the nodes.
        **options: ``type``, ``'rgat'`` for :class:`RelationalGraph` (default)
            or ``'gat'`` for :class:`PlainGraph`, and arguments of the class.

    Raises:
        ValueError: If ``type`` is unknown.
    """
    kind = named_class(options.pop('type', 'rgat'))
    graph = GRAPHS.get(kind, kind)
    if graph not in GRAPHS.values():
        raise ValueError(
            f'graph.type must be one of {sorted(GRAPHS)}, but is {kind!r}.'
        )
    return graph(width, **options)
