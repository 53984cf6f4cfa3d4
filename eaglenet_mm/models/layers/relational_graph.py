"""The text-frame relational graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.layers.keyed_random import (
    PairRandom,
    check_dropout,
    kept_share,
)
from eaglenet_mm.models.layers.relational_messages import (
    MessageOptions,
    RelationalMessages,
    Workspace,
    displace,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import Features


class AttentionProjection(nn.Module):
    """Projection and attention vectors of a relation.

    A node ``x`` has values ``h = W x``, in ``H`` heads of width ``O``, and
    logits ``left . h`` as a row and ``right . h`` as a column. The heads
    share both vectors. Since ``a . (W_h x) = (W_h^T a) . x``, a narrow
    product gives the logits without the values.

    Args:
        in_width (int): Width ``C`` of the nodes.
        head_width (int): Width ``O`` of a head.
        num_heads (int): Attention heads ``H``.

    Example:
        >>> relation = AttentionProjection(32, head_width=8, num_heads=4)
        >>> relation.values(video.frames).shape  # (Bv, H, F, O)
        torch.Size([4, 4, 8, 8])
        >>> left, right = relation.folded()  # logits are frames @ left.T
        >>> left.shape
        torch.Size([4, 32])
    """

    def __init__(self, in_width: int, head_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(in_width, num_heads * head_width, bias=False)
        self.left = nn.Parameter(torch.empty(head_width))
        self.right = nn.Parameter(torch.empty(head_width))
        bound = head_width**-0.5  # as nn.Linear(head_width, 1)
        nn.init.uniform_(self.left, -bound, bound)
        nn.init.uniform_(self.right, -bound, bound)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Left and right vectors folded into the projection, ``(H, C)``."""
        weights = self.project.weight.unflatten(0, (self.num_heads, -1))
        vectors = torch.stack([self.left, self.right])
        left, right = (vectors @ weights).unbind(dim=1)
        return left, right

    def values(self, nodes: Tensor) -> Tensor:
        """Project nodes ``(..., N, C)`` to ``(..., H, N, O)``."""
        values = self.project(nodes).unflatten(-1, (self.num_heads, -1))
        return values.transpose(-2, -3)


@dataclass
class RelationalFramesState(Features):
    """Inputs of a hidden layer that depend on the frames only."""

    base: Tensor  # frame-frame messages plus self projection, (Bv, F, D)
    left: Tensor  # frame-text logits of frames as rows, (Bv, F, H)
    right: Tensor  # frame-text logits of frames as columns, (Bv, F, H)
    values: Tensor  # frame-text values, heads concatenated, (Bv, F, D)


@dataclass
class RelationalTextsState(Features):
    """Inputs of a hidden layer that depend on the sentences only."""

    values: Tensor  # text-text values plus self projection, (Bt, D)
    narrow: Tensor  # text-text and frame-text logits, (Bt, 4 H)
    to_frames: Tensor  # frame-text values, (Bt, D)


@dataclass
class LastLogits(Features):
    """Logits of the last layer in a graph without hidden layers."""

    logits: Tensor  # (B, ..., H)


class _FoldedLayer(NamedTuple):
    """Stacked weights of a hidden layer."""

    weight: Tensor  # all projections of a candidate, (D+O(+D)+4H, D)
    frame_weight: Tensor  # frame-text projection, (D, D)


class FoldedGraph(NamedTuple):
    """Weights of a graph, rearranged once for all chunks."""

    hidden: list[_FoldedLayer]
    left: Tensor  # last layer, logits of frames, (H, O, H)
    right: Tensor  # last layer, logits of text nodes, (H, O, H)


class RelationalGraphLayer(nn.Module):
    """Hidden layer of relational graph attention.

    Nodes are fully connected in three relations: text-text and frame-frame,
    including self-loops, and frame-text in both directions::

        out_i = sum_r sum_j softmax_j(leaky_relu(a_l^r . h_i^r + a_r^r . h_j^r)) h_j^r
                + W_o x_i,    h^r = W_r x

    :meth:`plain` is a literal implementation. :meth:`forward` computes the
    same numbers much faster, from inputs precomputed per video and per text,
    in :class:`~eaglenet_mm.models.layers.relational_messages.RelationalMessages`.

    Args:
        width (int): Width ``D`` of the nodes.
        num_heads (int): Attention heads ``H`` of width ``O = D / H``.
        negative_slope (float): Slope of the leaky ReLU.

    Example:
        >>> layer = RelationalGraphLayer(32, num_heads=4, negative_slope=0.1)
        >>> texts, frames = layer.plain(torch.randn(4, 21, 32), video.frames)
        >>> texts.shape, frames.shape
        (torch.Size([4, 21, 32]), torch.Size([4, 8, 32]))
    """  # noqa: E501

    def __init__(
        self, width: int, num_heads: int, negative_slope: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.slope = negative_slope
        head_width = width // num_heads
        self.text_text = AttentionProjection(width, head_width, num_heads)
        self.frame_frame = AttentionProjection(width, head_width, num_heads)
        self.frame_text = AttentionProjection(width, head_width, num_heads)
        self.self_project = nn.Linear(width, head_width, bias=False)

    def plain(
        self, texts: Tensor, frames: Tensor, frame_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the layer from its definition, as a readable reference.

        Args:
            texts (Tensor): Text nodes of ``P`` pairs, shape ``(P, T, D)``.
            frames (Tensor): Their frames, shape ``(P, F, D)``.
            frame_mask (Tensor, optional): Shape ``(P, F)``. Default: None.

        Returns:
            tuple[Tensor, Tensor]: New text nodes and frames, before ReLU and
            dropout.
        """

        def receive(
            relation: AttentionProjection,
            rows: Tensor,
            columns: Tensor,
            mask: Tensor | None = None,
        ) -> Tensor:
            left = relation.values(rows) @ relation.left  # (P, H, N)
            values = relation.values(columns)  # (P, H, M, O)
            right = values @ relation.right  # (P, H, M)
            logits = F.leaky_relu(left[..., None] + right[..., None, :], slope)
            return masked_softmax(logits, mask) @ values  # (P, H, N, O)

        slope = self.slope
        to_texts = receive(self.text_text, texts, texts)
        to_texts += receive(self.frame_text, texts, frames, frame_mask)
        to_frames = receive(self.frame_frame, frames, frames, frame_mask)
        to_frames += receive(self.frame_text, frames, texts)
        to_texts += self.self_project(texts).unsqueeze(1)
        to_frames += self.self_project(frames).unsqueeze(1)
        return _join_heads(to_texts), _join_heads(to_frames)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> RelationalFramesState:
        """Precompute inputs from frames ``(Bv, F, D)``, mask ``(Bv, F)``."""
        folded = [*self.frame_frame.folded(), *self.frame_text.folded()]
        left, right, text_left, text_right = (
            frames @ torch.cat(folded).T
        ).split(self.num_heads, dim=-1)
        attention = masked_softmax(
            pair_logits(left, right, self.slope), frame_mask
        )  # (Bv, H, F, F)
        messages = attention @ self.frame_frame.values(frames)
        messages = messages + self.self_project(frames).unsqueeze(-3)
        return RelationalFramesState(
            base=_join_heads(messages),
            left=text_left,
            right=text_right,
            values=self.frame_text.project(frames),
        )

    def prepare_text(self, text: Tensor) -> RelationalTextsState:
        """Precompute inputs from sentences ``(Bt, D)``."""
        self_values = self.self_project(text).repeat(1, self.num_heads)
        return RelationalTextsState(
            values=self.text_text.project(text) + self_values,
            narrow=text @ self._narrow_weight().T,
            to_frames=self.frame_text.project(text),
        )

    def _narrow_weight(self) -> Tensor:
        return torch.cat([*self.text_text.folded(), *self.frame_text.folded()])

    def fold(self, projects_first: bool) -> _FoldedLayer:
        """Stack the weights, once for all chunks of a matrix.

        ``projects_first`` means projecting candidates before summing them for
        the frames, which is faster if frames outnumber candidates.
        """
        frame_weight = self.frame_text.project.weight
        parts = [self.text_text.project.weight, self.self_project.weight]
        if projects_first:
            parts.append(frame_weight)
        weight = torch.cat([*parts, self._narrow_weight()])
        return _FoldedLayer(weight, frame_weight)

    def forward(
        self,
        noise: Tensor,
        radius: Tensor | None,
        text: RelationalTextsState | None,
        frames: RelationalFramesState,
        folded: _FoldedLayer,
        frame_mask: Tensor | None,
        last: tuple[Tensor | None, Tensor | None],
        dropout: tuple[Tensor | None, Tensor | None],
        options: MessageOptions,
    ) -> tuple[Tensor, Tensor]:
        """Pass messages between the texts and frames of each pair.

        See ``RelationalMessages.forward`` for arguments and results.
        """
        dtype = product_type(folded.weight)
        sentence: tuple[Tensor | None, ...] = (None, None, None)
        if text is not None:
            sentence = (
                text.values.to(dtype),
                text.narrow,
                text.to_frames.to(dtype),
            )
        with torch.autocast(noise.device.type, enabled=False):
            return RelationalMessages.apply(
                noise,
                radius,
                *sentence,
                frames.base.to(dtype),
                at_least_float32(frames.left),
                at_least_float32(frames.right),
                frames.values.to(dtype),
                folded.weight.to(dtype),
                folded.frame_weight.to(dtype),
                *(None if x is None else x.to(dtype) for x in last),
                frame_mask,
                *dropout,
                options,
            )


class RelationalGraph(nn.Module):
    """Logits of the text candidates of each pair.

    Implements the relational graph of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_: hidden layers of relational graph
    attention, each followed by ReLU and dropout, and a last layer of which
    only the frame-text logits are needed and computed.

    Args:
        width (int): Width ``D`` of the nodes.
        num_layers (int): Layers, including the last. Default: 2.
        num_heads (int): Attention heads. Default: 4.
        dropout (float): Dropout rate after each hidden layer. Default: 0.5.
        negative_slope (float): Slope of the leaky ReLU. Default: 0.1.

    Raises:
        ValueError: If ``width`` is not a multiple of ``num_heads``,
            ``num_layers`` is below 1, or ``negative_slope`` is negative.

    Example:
        >>> graph = RelationalGraph(32)
        >>> noise, radius = torch.rand(20, 32), torch.ones(4, 3, 32)
        >>> texts = graph.prepare_text(text.embeds)
        >>> frames = graph.prepare_frames(video.frames, None)
        >>> graph(noise, radius, texts, frames).shape  # (Bv, Bt, 1 + S)
        torch.Size([4, 3, 21])
    """

    hidden: Any  # nn.ModuleList is not generic in its modules

    def __init__(
        self,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.5,
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__()
        check_graph_sizes(width, num_layers, num_heads)
        check_dropout(dropout)
        if negative_slope < 0:
            raise ValueError(
                f'negative_slope must be at least 0, but is {negative_slope}.'
            )
        self.dropout = dropout
        self.slope = negative_slope
        self.hidden = nn.ModuleList(
            RelationalGraphLayer(width, num_heads, negative_slope)
            for _ in range(num_layers - 1)
        )
        self.last = AttentionProjection(width, width, num_heads)

    def prepare_frames(
        self, frames: Tensor, frame_mask: Tensor | None
    ) -> RelationalFramesState | LastLogits:
        """Precompute the frame inputs ``(Bv, F, D)`` of the first layer.

        The mask ``(Bv, F)`` is True for real frames; None means all.
        """
        if not self.hidden:
            return LastLogits(frames @ self.last.folded()[0].T)
        return self.hidden[0].prepare_frames(frames, frame_mask)

    def prepare_text(self, text: Tensor) -> RelationalTextsState | LastLogits:
        """Precompute the text inputs ``(Bt, D)`` of the first layer."""
        if not self.hidden:
            return LastLogits(text @ self.last.folded()[1].T)
        return self.hidden[0].prepare_text(text)

    def fold(self, num_frames: int, num_candidates: int) -> FoldedGraph:
        """Rearrange the weights, once for all chunks of a matrix."""
        # after the first layer the sentence is a node like the candidates
        hidden = [
            layer.fold(num_frames > num_candidates + (index > 0))
            for index, layer in enumerate(self.hidden)
        ]
        left, right = (
            weight.unflatten(1, (self.last.num_heads, -1)).permute(1, 2, 0)
            for weight in self.last.folded()
        )
        return FoldedGraph(hidden, left, right)

    def forward(
        self,
        noise: Tensor,
        radius: Tensor | None,
        text: Any,
        frames: Any,
        folded: FoldedGraph | None = None,
        frame_mask: Tensor | None = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> Tensor:
        """Compute the logits of the candidates, averaged over the frames.

        Args:
            noise (Tensor): Noise of the candidates, without gradient, shape
                ``(S, D)`` for all pairs or ``(Bv, Bt, S, D)``. Without
                ``radius`` and ``text``, the text nodes themselves.
            radius (Tensor, optional): Factor of the noise, shape
                ``(Bv, Bt, D)``.
            text (RelationalTextsState | LastLogits, optional): Output of
                :meth:`prepare_text`.
            frames (RelationalFramesState | LastLogits): Output of
                :meth:`prepare_frames`.
            folded (FoldedGraph, optional): Output of :meth:`fold`, to share
                between chunks. Default: None.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``. Default: None, all are real.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
            workspace (Workspace, optional): Buffers to share between chunks.
                Default: None.

        Returns:
            Tensor: ``a`` of the paper, before the softmax, for the sentence
            and its candidates, shape ``(Bv, Bt, 1 + S)``.
        """
        shape = (noise if radius is None else radius).shape[:2]
        if isinstance(frames, LastLogits):
            spread = displace(noise, radius, noise.dtype)
            own = spread @ self.last.folded()[1].T
            if text is not None:
                own = pad_sentence(own) + text.logits.unsqueeze(1)
            logits = pair_logits(frames.logits.unsqueeze(1), own, self.slope)
            return mean_over_frames(logits, frame_mask)
        count = noise.shape[-2] + (text is not None)
        if folded is None:
            folded = self.fold(frames.base.shape[1], noise.shape[-2])
        options = MessageOptions(
            self.slope,
            1.0 if random is None else kept_share(self.dropout),
            workspace or Workspace(),
            reuse=workspace is not None and not torch.is_grad_enabled(),
        )
        mask = frame_mask
        text_nodes = frame_nodes = noise
        for index, layer in enumerate(self.hidden):
            if index > 0:
                # nodes are now specific to a pair: one text per "video"
                noise = _join_pairs(text_nodes).unsqueeze(1)
                radius = text = None
                if mask is not None and index == 1:
                    mask = mask.repeat_interleave(shape[1], dim=0)
                frames = layer.prepare_frames(_join_pairs(frame_nodes), mask)
            is_last = layer is self.hidden[-1]
            text_nodes, frame_nodes = layer(
                noise,
                radius,
                text,
                frames,
                folded.hidden[index],
                mask,
                (folded.left, folded.right) if is_last else (None, None),
                self._dropout(random, index, count, frames),
                options._replace(reuse=options.reuse and index == 0),
            )
        # last layer: logits only, (Bv * Bt, H, F, T)
        logits = pair_logits(frame_nodes, text_nodes, self.slope)
        return mean_over_frames(logits.unflatten(0, shape), frame_mask)

    def _dropout(
        self,
        random: PairRandom | None,
        index: int,
        num_texts: int,
        frames: RelationalFramesState,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Draw masks of text nodes and frames, ``(Bv * Bt, 1, H, N, O)``."""
        if random is None:
            return None, None
        num_frames, heads = frames.left.shape[-2:]
        base = frames.base
        like = base.new_empty(0, dtype=product_type(base))

        def draw(kind: str, count: int) -> Tensor | None:
            shape = (heads, count, base.shape[-1] // heads)
            mask = random.dropout_mask(
                f'graph {index} {kind}', *shape, rate=self.dropout, like=like
            )
            return None if mask is None else mask.view(-1, 1, *shape)

        return draw('text', num_texts), draw('frames', num_frames)

    def numbers_per_pair(
        self, num_frames: int, num_candidates: int, training: bool
    ) -> float:
        """Count the float32 numbers per pair.

        In training those kept for the backward pass, otherwise the peak.
        """
        width, heads = self.last.project.in_features, self.last.num_heads
        nodes = num_candidates + 1
        messages = nodes * num_frames * heads
        if not self.hidden:  # displacements and logits of the last layer
            if training:
                return num_candidates * width + messages
            return nodes * (width + 2 * heads) + 2 * messages
        products = (1 + 1 / heads + (num_frames > num_candidates)) * nodes
        first = width * (products + nodes + num_frames)
        if not training:
            # projections dominate, or attention if D is small
            dots = heads * nodes * (2 * nodes + num_frames)
            total = first + width * (num_candidates + num_frames)
            total += max(width * num_frames, 3 * width + dots)
            if len(self.hidden) > 1:  # frame nodes per pair
                dots = heads * (nodes + 2 * num_frames) * (nodes + num_frames)
                total = 2 * total + width + dots
            return total + 4 * width * num_frames * (len(self.hidden) > 2)
        attention = 1.3 * heads * nodes * nodes + 3.2 * messages
        # further layers prepare frames per pair
        further = width * (products + 2 * nodes + 4 * num_frames + 1)
        further += heads * (nodes + 2 * num_frames) * (nodes + num_frames)
        return first + attention + (len(self.hidden) - 1) * further


def pair_logits(left: Tensor, right: Tensor, slope: float) -> Tensor:
    """Leaky ReLU of row ``(.., N, H)`` plus column logits, ``(.., H, N, M)``.

    A slope of 1 means no leaky ReLU.
    """
    logits = left.transpose(-1, -2).unsqueeze(-1) + right.transpose(
        -1, -2
    ).unsqueeze(-2)
    return logits if slope == 1.0 else F.leaky_relu(logits, slope)


def masked_softmax(logits: Tensor, column_mask: Tensor | None) -> Tensor:
    """Softmax of ``(.., H, N, M)`` over columns that are True in ``(.., M)``.

    Computed in float32 or wider, returned in the dtype of the logits.
    """
    dtype, logits = logits.dtype, at_least_float32(logits)
    if column_mask is not None:
        mask = column_mask.unsqueeze(-2).unsqueeze(-2)
        logits = logits.masked_fill(~mask, float('-inf'))
    return logits.softmax(dim=-1).to(dtype)


def mean_over_frames(logits: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Mean of ``(Bv, Bt, H, F, T)`` over heads and real frames."""
    logits = at_least_float32(logits).mean(dim=2)
    if frame_mask is None:
        return logits.mean(dim=2)
    share = frame_mask / frame_mask.sum(dim=-1, keepdim=True)
    with torch.autocast(logits.device.type, enabled=False):
        return torch.einsum('vtfk,vf->vtk', logits, share.to(logits.dtype))


def product_type(x: Tensor) -> torch.dtype:
    """Dtype of large products, that of autocast if enabled."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def pad_sentence(nodes: Tensor) -> Tensor:
    """Prepend a zero node, the sentence's displacement, to ``(.., S, C)``."""
    return F.pad(nodes, (0, 0, 1, 0))


def check_graph_sizes(width: int, num_layers: int, num_heads: int) -> None:
    """Raise an error for invalid sizes."""
    if num_layers < 1:
        raise ValueError(
            f'A graph needs at least one layer, but num_layers={num_layers}.'
        )
    if width % num_heads:
        raise ValueError(
            f'The width of the graph, {width}, must be a multiple of '
            f'num_heads={num_heads}. Change num_heads.'
        )


def _join_heads(nodes: Tensor) -> Tensor:
    """Reshape nodes ``(.., H, N, O)`` to ``(.., N, D)``."""
    return nodes.transpose(-2, -3).flatten(-2)


def _join_pairs(nodes: Tensor) -> Tensor:
    """Reshape nodes ``(H, B, N, O)`` of the kernel to ``(B, N, D)``."""
    return nodes.permute(1, 2, 0, 3).flatten(2)
