"""Energy-aware matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.layers.keyed_random import KeyedRandom
from eaglenet_mm.models.losses.langevin_sampler import (
    LangevinSampler,
    NoiseSource,
)
from eaglenet_mm.registry import MODELS


class KeyedNoise:
    """Keyed random numbers in order of drawing.

    Args:
        random (KeyedRandom): Source.
        purpose (str): Names what they are drawn for.
    """

    #: Draws of normal numbers made at once: a draw of a step is small.
    AT_ONCE = 5

    def __init__(self, random: KeyedRandom, purpose: str) -> None:
        self.random = random
        self.purpose = purpose
        self.draws = 0
        self._ahead: dict[tuple[range, tuple[int, ...]], list[Tensor]] = {}

    def _name(self) -> str:
        self.draws += 1
        return f'{self.purpose} {self.draws}'

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``U[0, 1)``, shape ``(len(rows), *shape)``."""
        keys = torch.tensor(rows, dtype=torch.int64)
        return self.random.uniform(self._name(), keys, shape, like)

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """Draw from ``N(0, 1)``, shape ``(len(rows), *shape)``."""
        ahead = self._ahead.setdefault((rows, shape), [])
        if not ahead:
            keys = torch.tensor(rows, dtype=torch.int64)
            numbers = self.random.normal(
                self._name(), keys, (self.AT_ONCE, *shape), like
            )
            ahead.extend(numbers.unbind(dim=1))
        return ahead.pop(0)

    def permutation(self, size: int, like: Tensor) -> Tensor:
        """Draw a permutation."""
        return self.random.permutation(self._name(), size, like)


class Share(NamedTuple):
    """The share of a joint batch that one process works on.

    Args:
        rows (range): Its rows in the joint batch.
        gather (Callable): Joins the rows of all processes, with gradient.
    """

    rows: range
    gather: Callable[[Tensor], Tensor]


@MODELS.register_module()
class EnergyMatchingLoss(BaseModule):
    """Keep the energy of matching pairs below that of all others.

    Implements energy-aware matching of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_::

        l(E+, E) = mean(E+) - mean(E) + regularization * (mean(E+^2) + mean(E^2))
        loss     = (l(E+, E-) + l(E+, Es)) / 2

    with the energies of the ``B`` matching pairs, of the ``B (B - 1)`` others
    and of ``B`` pairs sampled by Langevin dynamics. A batch of one has no
    other pairs; its loss is ``l(E+, Es)``.

    Args:
        embed_dim (int): Width ``D``.
        num_frames (int): Frames of a video ``F``.
        energy (dict): Config of the energy without ``embed_dim``. Default:
            ``dict(type='MLPEnergy')``.
        sampler (dict, optional): Options of :class:`LangevinSampler`.
        regularization (float): Weight of the squared energies. Default: 1.
    """  # noqa: E501

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        energy: dict | None = None,
        sampler: dict | None = None,
        regularization: float = 1.0,
    ) -> None:
        super().__init__()
        self.energy = MODELS.build(
            {
                **(energy or dict(type='MLPEnergy')),
                'embed_dim': embed_dim,
            }
        )
        self.sampler = LangevinSampler(
            num_frames, embed_dim, **(sampler or {})
        )
        self.regularization = regularization

    def all_pairs(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the energies of all pairs.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            text (Tensor): Shape ``(Bt, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.

        Returns:
            Tensor: Rows are texts, shape ``(Bt, Bv)``.
        """
        sides = self.energy.sides(frames, text, False)
        return self.energy.rows(*sides, frame_mask)

    def contrast(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute ``l(low, high)`` of two sets of energies."""
        squares = low.square().mean() + high.square().mean()
        return low.mean() - high.mean() + self.regularization * squares

    def forward(
        self,
        frames: Tensor,
        text: Tensor,
        noise: NoiseSource,
        frame_mask: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Compute the loss and, in training, move the sampler on.

        Args:
            frames (Tensor): Of the joint batch or a share of it, shape
                ``(B, F, D)``.
            text (Tensor): Shape ``(B, D)``.
            noise (NoiseSource): Random numbers of the sampler.
            frame_mask (Tensor, optional): True for frames that count, shape
                ``(B, F)``. Default: None, all of them.
            share (Share, optional): Which share of the joint batch the sides
                are. Default: None, all of it.

        Returns:
            Tensor: A scalar, that of the joint batch.

        Raises:
            ValueError: If the sides differ in number or the frames do not
                fit the replay buffer.
        """
        self._check(frames, text)
        share = share or Share(range(len(text)), lambda x: x)
        gather = share.gather
        # half precision cannot hold squared energies of raw features
        with torch.autocast(frames.device.type, enabled=False):
            if frames.dtype in (torch.float16, torch.bfloat16):
                frames, text = frames.float(), text.float()
            frame_side, text_side = self.energy.sides(
                frames, text.to(frames.dtype), False
            )
            if frame_mask is not None:
                frame_mask = gather(frame_mask)
            energies = gather(
                self.energy.rows(gather(frame_side), text_side, frame_mask)
            )
            sampled = self._sample(len(energies), noise, share)
            positive = energies.diagonal()
            loss = self.contrast(positive, sampled)
            if len(energies) > 1:
                other = ~torch.eye(
                    len(energies), dtype=torch.bool, device=text.device
                )
                loss = (loss + self.contrast(positive, energies[other])) / 2
            return loss

    def _sample(self, size: int, noise: NoiseSource, share: Share) -> Tensor:
        """Energies of the sampled pairs of the joint batch, ``(B,)``."""
        pairs = self.sampler.sample(
            self.energy.gradient, size, noise, share.rows
        )
        if self.training:
            self.sampler.store(*(share.gather(x) for x in pairs))
        return share.gather(self.energy.matching(*pairs))

    def _check(self, frames: Tensor, text: Tensor) -> None:
        expected = tuple(self.sampler.replay_video.shape[1:])
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(
                'The energy loss was built for frames of shape (B, '
                f'{expected[0]}, {expected[1]}), but got '
                f'{tuple(frames.shape)}. Make num_frames and embed_dim of the '
                'loss those of the head.'
            )
        if len(frames) != len(text):
            raise ValueError(
                f'Energies need one text a video, but got {len(text)} texts '
                f'and {len(frames)} videos.'
            )
