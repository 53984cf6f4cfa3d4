"""What the EagleNet head prepares of each side."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eaglenet_mm.models.layers import PooledFramesState
from eaglenet_mm.models.layers.plain_graph import PlainFramesState
from eaglenet_mm.models.layers.relational_graph import LastLogits
from eaglenet_mm.models.layers.relational_layer import (
    RelationalFramesState,
    RelationalTextsState,
)
from eaglenet_mm.structures import EmbedsState, Features


@dataclass
class EagleNetTextState(Features):
    """Everything the head needs of ``Bt`` sentences.

    Args:
        embeds (Tensor): As they leave the encoder, shape ``(Bt, D)``.
        graph (Features): Text side of the first layer of the graph.
    """

    embeds: Tensor
    graph: RelationalTextsState | LastLogits | EmbedsState


@dataclass
class EagleNetVideoState(Features):
    """Everything the head needs of ``Bv`` videos.

    Args:
        unit_frames (Tensor): Frames of unit length, shape ``(Bv, F, D)``.
        pooled_frames (PooledFramesState): Keys and values of the pooling.
        graph (Features): Video side of the first layer of the graph.
        frame_mask (Tensor, optional): Shape ``(Bv, F)``; None if the head
            does not mask.
    """

    unit_frames: Tensor
    pooled_frames: PooledFramesState
    graph: RelationalFramesState | PlainFramesState | LastLogits
    frame_mask: Tensor | None = None


def check_frames(
    frames: Tensor, mask: Tensor | None, num_frames: int, embed_dim: int
) -> None:
    """Refuse video features that do not fit the head.

    Args:
        frames (Tensor): Shape ``(Bv, F, D)``.
        mask (Tensor, optional): True for real frames, if the head masks.
        num_frames (int): Frames the head was built for.
        embed_dim (int): Width the head was built for.

    Raises:
        ValueError: If the sizes differ, or a video has no real frame.
    """
    if frames.shape[1:] != (num_frames, embed_dim):
        raise ValueError(
            f'The head was built for num_frames={num_frames} and '
            f'embed_dim={embed_dim}, but got video features of shape '
            f'{tuple(frames.shape)}. Set num_frames alike in the head, '
            'the preprocessor and the pipeline.'
        )
    if mask is not None and not bool(mask.any(dim=1).all()):
        empty = (~mask.any(dim=1)).nonzero().flatten()
        raise ValueError(
            f'{len(empty)} videos have no real frame, the first at '
            f'position {int(empty[0])}. Remove them from the annotations.'
        )
