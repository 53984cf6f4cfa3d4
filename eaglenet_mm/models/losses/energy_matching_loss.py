"""Energy-aware matching."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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

    def __init__(self, random: KeyedRandom, purpose: str) -> None:
        self.random = random
        self.purpose = purpose
        self.draws = 0

    def _name(self) -> str:
        self.draws += 1
        return f'{self.purpose} {self.draws}'

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw from ``U[0, 1)``."""
        return self.random.uniform(self._name(), shape, like)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw from ``N(0, 1)``."""
        return self.random.normal(self._name(), shape, like)

    def permutation(self, size: int, like: Tensor) -> Tensor:
        """Draw a permutation."""
        return self.random.permutation(self._name(), size, like)


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
        memory_budget (int): Bytes that the hidden layer of a chunk of pairs
            may take. Default: 256 MiB.
    """  # noqa: E501

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        energy: dict | None = None,
        sampler: dict | None = None,
        regularization: float = 1.0,
        memory_budget: int = 256 * 2**20,
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
        self.memory_budget = memory_budget

    def all_pairs(
        self, frames: Tensor, text: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the energies of all pairs in chunks of texts.

        Args:
            frames (Tensor): Shape ``(Bv, F, D)``.
            text (Tensor): Shape ``(Bt, D)``.
            frame_mask (Tensor, optional): Shape ``(Bv, F)``.

        Returns:
            Tensor: Rows are texts, shape ``(Bt, Bv)``.
        """
        frames, text = self.energy.sides(frames, text, False)
        row_bytes = 2 * frames.numel() * frames.element_size()
        step = max(1, self.memory_budget // max(1, row_bytes))
        if step >= len(text):
            return self.energy.rows(frames, text, frame_mask)
        return torch.cat(
            [
                checkpoint(
                    self.energy.rows,
                    frames,
                    part,
                    frame_mask,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
                for part in text.split(step)
            ]
        )

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
    ) -> Tensor:
        """Compute the loss and move the sampler on.

        Args:
            frames (Tensor): Of the joint batch, shape ``(B, F, D)``.
            text (Tensor): Shape ``(B, D)``.
            noise (NoiseSource): Random numbers of the sampler.
            frame_mask (Tensor, optional): True for frames that count, shape
                ``(B, F)``. Default: None, all of them.

        Returns:
            Tensor: A scalar.

        Raises:
            ValueError: If the sides differ in number or the frames do not
                fit the replay buffer.
        """
        self._check(frames, text)
        # half precision cannot hold squared energies of raw features
        with torch.autocast(frames.device.type, enabled=False):
            if frames.dtype in (torch.float16, torch.bfloat16):
                frames, text = frames.float(), text.float()
            energies = self.all_pairs(frames, text, frame_mask)
            sampled_frames, sampled_text = self.sampler.sample(
                lambda f, t: self.energy.matching(f, t, constant=True),
                len(text),
                noise,
            )
            sampled = self.energy.matching(sampled_frames, sampled_text)
            positive = energies.diagonal()
            loss = self.contrast(positive, sampled)
            if len(text) > 1:
                other = ~torch.eye(
                    len(text), dtype=torch.bool, device=text.device
                )
                loss = (loss + self.contrast(positive, energies[other])) / 2
            return loss

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
