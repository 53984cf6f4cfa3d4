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
    """Projection of nodes with the two attention vectors of a relation.

    A node ``x`` has the values ``h = W x``, in ``H`` heads of width ``O``,
    and the logits ``left . h`` as a row and ``right . h`` as a column. The
    vectors are shared by the heads. Since ``a . (W_h x) = (W_h^T a) . x``,
    logits need no values: one narrow product gives them.

    Args:
        in_width (int): Width ``C`` of a node.
        head_width (int): Width ``O`` of a head.
        num_heads (int): Heads ``H``.

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
        """Both vectors folded into the projection, each ``(H, C)``."""
        weights = self.project.weight.unflatten(0, (self.num_heads, -1))
        vectors = torch.stack([self.left, self.right])
        left, right = (vectors @ weights).unbind(dim=1)
        return left, right

    def values(self, nodes: Tensor) -> Tensor:
        """Projected nodes ``(..., N, C)``, as ``(..., H, N, O)``."""
        values = self.project(nodes).unflatten(-1, (self.num_heads, -1))
        return values.transpose(-2, -3)


@dataclass
class RelationalFramesState(Features):
    """What one hidden layer needs of the frames, whatever the text."""

    base: Tensor  # frame-frame messages plus the frame itself, (Bv, F, D)
    left: Tensor  # frame-text logits of frames as rows, (Bv, F, H)
    right: Tensor  # the same as columns, (Bv, F, H)
    values: Tensor  # frame-text values, head after head, (Bv, F, D)


@dataclass
class RelationalTextsState(Features):
    """What one hidden layer needs of the sentences, whatever the video."""

    values: Tensor  # text-text values plus the node itself, (Bt, D)
    narrow: Tensor  # text-text logits left and right, frame-text, (Bt, 4 H)
    to_frames: Tensor  # frame-text values, (Bt, D)


@dataclass
class LastLogits(Features):
    """Logits of the last layer, where no layer comes before it."""

    logits: Tensor  # (B, ..., H)


class _FoldedLayer(NamedTuple):
    """Weights of a hidden layer, made ready for chunks of pairs."""

    weight: Tensor  # all a candidate is multiplied with, (D+O(+D)+4H, D)
    frame_weight: Tensor  # of frame-text values, (D, D)


class FoldedGraph(NamedTuple):
    """Weights of a graph, made ready for chunks of pairs."""

    hidden: list[_FoldedLayer]
    left: Tensor  # of the last logits of the frames, (H, O, H)
    right: Tensor  # of those of the text nodes, (H, O, H)


class RelationalGraphLayer(nn.Module):
    """A hidden layer of relational graph attention.

    Three relations, complete within their kind: text-text and frame-frame
    with the node itself, and frame-text in both directions::

        out_i = sum_r sum_j softmax_j(leaky_relu(a_l^r . h_i^r + a_r^r . h_j^r)) h_j^r
                + W_o x_i,    h^r = W_r x

    :meth:`plain` is these formulas as they stand. :meth:`forward` gives the
    same numbers many times faster: what the frames alone or the sentence
    alone decide is computed once a side, and the rest by
    :class:`~eaglenet_mm.models.layers.relational_messages.RelationalMessages`.

    Args:
        width (int): Width ``D`` of the nodes.
        num_heads (int): Heads ``H`` of width ``O = D / H``.
        negative_slope (float): Of the leaky ReLU.

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
        """Compute the layer as it is written, to be read and compared with.

        Args:
            texts (Tensor): Text nodes of ``P`` pairs, shape ``(P, T, D)``.
            frames (Tensor): Their frames, shape ``(P, F, D)``.
            frame_mask (Tensor, optional): Shape ``(P, F)``. Default: None.

        Returns:
            tuple[Tensor, Tensor]: Text nodes and frames behind the layer,
            before ReLU and dropout, in the shapes they came in.
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
        """Compute everything that depends on the frames alone.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
        """
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
        """Compute everything that depends on the sentences, ``(Bt, D)``."""
        itself = self.self_project(text).repeat(1, self.num_heads)
        return RelationalTextsState(
            values=self.text_text.project(text) + itself,
            narrow=text @ self._narrow_weight().T,
            to_frames=self.frame_text.project(text),
        )

    def _narrow_weight(self) -> Tensor:
        return torch.cat([*self.text_text.folded(), *self.frame_text.folded()])

    def fold(self, projects_first: bool) -> _FoldedLayer:
        """Stack the weights; done once for all chunks of a matrix.

        Args:
            projects_first (bool): Whether candidates are projected before the
                frames add them up: good where frames outnumber candidates.
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
        """Pass messages between the texts and the frames of each pair.

        Arguments, shapes and results are those of ``RelationalMessages``.
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
    """Logits of the text candidates of every pair.

    Implements the relational graph of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_: hidden layers of relational graph
    attention, each with ReLU and dropout, and a last one. Of that only the
    frame-text logits are computed, the only part of it that reaches the
    result (the release computes and drops the rest).

    Args:
        width (int): Width ``D`` of the nodes.
        num_layers (int): Layers, the last included. Default: 2.
        num_heads (int): Heads. Default: 4.
        dropout (float): Rate behind each hidden layer. Default: 0.5.
        negative_slope (float): Of the leaky ReLU. Default: 0.1.

    Raises:
        ValueError: If ``width`` is no multiple of ``num_heads``,
            ``num_layers`` is below 1 or ``negative_slope`` below 0.

    Example:
        >>> graph = RelationalGraph(32)
        >>> noise, radius = torch.rand(20, 32), torch.ones(4, 3, 32)
        >>> texts = graph.prepare_text(text.embeds)
        >>> frames = graph.prepare_frames(video.frames, None)
        >>> graph(noise, radius, texts, frames).shape  # (Bv, Bt, 1 + S)
        torch.Size([4, 3, 21])
    """

    hidden: Any  # nn.ModuleList forgets what class its modules have

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
                'negative_slope cannot be negative itself, but is '
                f'{negative_slope}.'
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
        """Compute the video side of the first layer.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.
        """
        if not self.hidden:
            return LastLogits(frames @ self.last.folded()[0].T)
        return self.hidden[0].prepare_frames(frames, frame_mask)

    def prepare_text(self, text: Tensor) -> RelationalTextsState | LastLogits:
        """Compute the text side of the first layer, of ``(Bt, D)``."""
        if not self.hidden:
            return LastLogits(text @ self.last.folded()[1].T)
        return self.hidden[0].prepare_text(text)

    def fold(self, num_frames: int, num_candidates: int) -> FoldedGraph:
        """Make the weights ready for chunks of pairs.

        Args:
            num_frames (int): Frames ``F``.
            num_candidates (int): Displaced candidates of the first layer.
        """
        # the sentence, the origin of the first layer, is a node of the others
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
                radius and text these are the text nodes themselves.
            radius (Tensor, optional): What noise is multiplied with to
                displace the candidates from their sentence, shape
                ``(Bv, Bt, D)``.
            text (RelationalTextsState | LastLogits, optional): Of
                :meth:`prepare_text`.
            frames (RelationalFramesState | LastLogits): Of
                :meth:`prepare_frames`.
            folded (FoldedGraph, optional): Of :meth:`fold`. Default: None,
                fold now.
            frame_mask (Tensor, optional): True for frames that count, shape
                ``(Bv, F)``. Default: None, all of them.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
            workspace (Workspace, optional): Memory of other chunks.

        Returns:
            Tensor: ``a`` of the paper, before its softmax, of the sentence
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
                # the nodes of a pair now are its own: one text a video
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
        # of the last layer the logits alone are needed, (Bv * Bt, H, F, T)
        logits = pair_logits(frame_nodes, text_nodes, self.slope)
        return mean_over_frames(logits.unflatten(0, shape), frame_mask)

    def _dropout(
        self,
        random: PairRandom | None,
        index: int,
        num_texts: int,
        frames: RelationalFramesState,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Draw the dropout masks of a layer, ``(Bv, Bt, H, nodes, O)``."""
        if random is None or self.dropout == 0.0:
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
        """Count the numbers that the graph of one pair takes.

        Args:
            num_frames (int): Frames ``F``.
            num_candidates (int): Candidates ``S``.
            training (bool): Count what the backward pass needs, else the
                widest tensors that live at once.
        """
        width, heads = self.last.project.in_features, self.last.num_heads
        nodes = num_candidates + 1
        messages = nodes * num_frames * heads
        if not self.hidden:  # displacements and last logits
            if training:
                return num_candidates * width + messages
            return nodes * (width + 2 * heads) + 2 * messages
        products = (1 + 1 / heads + (num_frames > num_candidates)) * nodes
        first = width * (products + nodes + num_frames)
        if not training:
            # the widest are projections, or attention where D is small
            dots = heads * nodes * (2 * nodes + num_frames)
            total = first + width * (num_candidates + num_frames)
            total += max(width * num_frames, 3 * width + dots)
            if len(self.hidden) > 1:  # frames are those of a pair then
                dots = heads * (nodes + 2 * num_frames) * (nodes + num_frames)
                total = 2 * total + width + dots
            return total + 4 * width * num_frames * (len(self.hidden) > 2)
        attention = 1.3 * heads * nodes * nodes + 3.2 * messages
        # further layers prepare the frames of every pair for themselves
        further = width * (products + 2 * nodes + 4 * num_frames + 1)
        further += heads * (nodes + 2 * num_frames) * (nodes + num_frames)
        return first + attention + (len(self.hidden) - 1) * further


def pair_logits(left: Tensor, right: Tensor, slope: float) -> Tensor:
    """Sums of row ``(.., N, H)`` and column logits, ``(.., H, N, M)``.

    Followed by a leaky ReLU of this slope; 1 for none.
    """
    logits = left.transpose(-1, -2).unsqueeze(-1) + right.transpose(
        -1, -2
    ).unsqueeze(-2)
    return logits if slope == 1.0 else F.leaky_relu(logits, slope)


def masked_softmax(logits: Tensor, column_mask: Tensor | None) -> Tensor:
    """Softmax over the columns that count, in float32 or wider.

    Of logits ``(.., H, N, M)`` and a mask ``(.., M)``, in the logits' type.
    """
    dtype, logits = logits.dtype, at_least_float32(logits)
    if column_mask is not None:
        mask = column_mask.unsqueeze(-2).unsqueeze(-2)
        logits = logits.masked_fill(~mask, float('-inf'))
    return logits.softmax(dim=-1).to(dtype)


def mean_over_frames(logits: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Mean of ``(Bv, Bt, H, F, T)`` over heads and the frames that count."""
    logits = at_least_float32(logits).mean(dim=2)
    if frame_mask is None:
        return logits.mean(dim=2)
    share = frame_mask / frame_mask.sum(dim=-1, keepdim=True)
    with torch.autocast(logits.device.type, enabled=False):
        return torch.einsum('vtfk,vf->vtk', logits, share.to(logits.dtype))


def product_type(x: Tensor) -> torch.dtype:
    """Type of large products: that of autocast if it is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def pad_sentence(nodes: Tensor) -> Tensor:
    """Put a zero, the displacement of the sentence, before ``(.., S, C)``."""
    return F.pad(nodes, (0, 0, 1, 0))


def check_graph_sizes(width: int, num_layers: int, num_heads: int) -> None:
    """Refuse sizes a graph cannot have."""
    if num_layers < 1:
        raise ValueError(
            f'A graph needs at least one layer, but num_layers={num_layers}.'
        )
    if width % num_heads:
        raise ValueError(
            f'The graph splits its width in heads, but {width} is no '
            f'multiple of num_heads={num_heads}.'
        )


def _join_heads(nodes: Tensor) -> Tensor:
    """Bring nodes ``(.., H, N, O)`` to ``(.., N, D)``."""
    return nodes.transpose(-2, -3).flatten(-2)


def _join_pairs(nodes: Tensor) -> Tensor:
    """Bring nodes ``(H, B, N, O)`` of the kernel to ``(B, N, D)``."""
    return nodes.permute(1, 2, 0, 3).flatten(2)
