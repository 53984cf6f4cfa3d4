"""What the EagleNet head prepares of each side, and its random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eaglenet_mm.models.layers import (
    KeyedRandom,
    PairRandom,
    PooledFramesState,
)
from eaglenet_mm.models.layers.plain_graph import EmbedsState, PlainFramesState
from eaglenet_mm.models.layers.relational_graph import (
    LastLogits,
    RelationalFramesState,
    RelationalTextsState,
)
from eaglenet_mm.structures import Features


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


class CandidateNoise:
    """Noise of the text candidates of a chunk of pairs.

    Args:
        prior (str): ``'uniform01'`` or ``'normal'``.
        std (float): Standard deviation of ``'normal'``.
        num_candidates (int): Candidates ``S``.
    """

    PRIORS = ('uniform01', 'normal')

    def __init__(self, prior: str, std: float, num_candidates: int) -> None:
        if prior not in self.PRIORS:
            raise ValueError(
                f'prior must be one of {self.PRIORS}, but is {prior!r}.'
            )
        if num_candidates < 0:
            raise ValueError(
                f'num_candidates cannot be negative, but is {num_candidates}.'
            )
        self.prior = prior
        self.std = std
        self.num_candidates = num_candidates

    def table(self, width: int, seed: int) -> Tensor:
        """Draw the table shared by all pairs, shape ``(S, D)``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.num_candidates, width)
        if self.prior == 'normal':
            return self.std * torch.randn(*shape, generator=generator)
        return torch.rand(*shape, generator=generator)

    def matching(
        self, random: KeyedRandom, rows: range, like: Tensor
    ) -> Tensor:
        """Draw one vector for each matching pair.

        Args:
            random (KeyedRandom): Random numbers of the step.
            rows (range): Places of the pairs in the joint batch.
            like (Tensor): Gives width, type and device.

        Returns:
            Tensor: Shape ``(B, D)``.
        """
        keys, shape = torch.tensor(rows), like.shape[:1]
        if self.prior == 'normal':
            drawn = random.normal('matching text', keys, shape, like)
            return self.std * drawn
        return random.uniform('matching text', keys, shape, like)

    def pairs(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw noise for each pair on its own.

        Args:
            random (PairRandom): Random numbers of the pairs.
            like (Tensor): Gives width, type and device.

        Returns:
            Tensor: Shape ``(Bv, Bt, S, D)``.
        """
        shape = (self.num_candidates, like.shape[-1])
        if self.prior == 'normal':
            return random.normal('candidates', *shape, like=like) * self.std
        return random.uniform('candidates', *shape, like=like)


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
