"""Energy-aware matching."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.losses.joint_batch import (
    PairLabels,
    Share,
    check_same_video,
)
from eaglenet_mm.models.losses.langevin_sampler import (
    LangevinSampler,
    NoiseSource,
)
from eaglenet_mm.registry import MODELS


@MODELS.register_module()
class EnergyMatchingLoss(BaseModule):
    """Keep the energy of matching pairs below that of all others.

    Implements energy-aware matching of `EagleNet
    <https://arxiv.org/abs/2603.25267>`_::

        l(E+, E) = mean(E+) - mean(E) + regularization * (mean(E+^2) + mean(E^2))
        loss     = (l(E+, E-) + l(E+, Es)) / 2

    with the energies ``E+`` of the ``B`` matching pairs, ``E-`` of the
    ``B (B - 1)`` others and ``Es`` of ``B`` pairs sampled by Langevin
    dynamics. Where there are no other pairs, as in a batch of one, the loss is
    ``l(E+, Es)``. Other pairs of the same video belong by ``same_video`` to:

    - ``'negative'``: ``E-``, as in the release.
    - ``'ignore'``: neither, so they are in no mean.
    - ``'positive'``: ``E+``, whose means then run over all pairs of the same
      video.

    Args:
        embed_dim (int): Width ``D``.
        num_frames (int): Frames of a video ``F``.
        energy (dict): Config of the energy without ``embed_dim``. Default:
            ``dict(type='MLPEnergy')``.
        sampler (dict, optional): Options of :class:`LangevinSampler`.
        regularization (float): Weight of the squared energies. Default: 1.
        same_video (str): What other pairs of the same video count as,
            ``'negative'``, ``'ignore'`` or ``'positive'``. Default:
            ``'negative'``.

    Raises:
        ValueError: If ``same_video`` is none of these.

    Example:
        >>> from eaglenet_mm.models.layers import KeyedRandom
        >>> from eaglenet_mm.models.losses import KeyedNoise
        >>> loss = EnergyMatchingLoss(embed_dim=32, num_frames=8)
        >>> noise = KeyedNoise(KeyedRandom(seed=0), 'energy')
        >>> loss(video.frames[:3], text.embeds, noise).shape
        torch.Size([])
    """  # noqa: E501

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        energy: dict | None = None,
        sampler: dict | None = None,
        regularization: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__()
        self.same_video = check_same_video(same_video)
        energy = energy or dict(type='MLPEnergy')
        self.energy = MODELS.build({**energy, 'embed_dim': embed_dim})
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
        sides = self.energy.sides(frames, text)
        return self.energy.rows(*sides, frame_mask)

    def contrast(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute ``l`` of two sets by their means of ``E`` and ``E^2``."""
        squares = low[1] + high[1]
        return low[0] - high[0] + self.regularization * squares

    def forward(
        self,
        frames: Tensor,
        text: Tensor,
        noise: NoiseSource,
        frame_mask: Tensor | None = None,
        share: Share | None = None,
        positives: Tensor | None = None,
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
            positives (Tensor, optional): Which pairs are of the same video:
                a bool matrix, own rows of shape ``(b, B)``, or numbers of the
                ``B`` videos, equal where the video is the same. Default:
                None, those of the share.

        Returns:
            Tensor: A scalar, that of the joint batch.

        Raises:
            ValueError: If the sides differ in number, the frames do not fit
                the replay buffer, ``positives`` do not fit, or ``same_video``
                needs them and there are none.
        """
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
        share = share or Share(range(len(text)), lambda x: x)
        gather = share.gather
        # half precision cannot hold squared energies of raw features
        with torch.autocast(frames.device.type, enabled=False):
            if frames.dtype in (torch.float16, torch.bfloat16):
                frames, text = frames.float(), text.float()
            frame_side, text_side = self.energy.sides(
                frames, text.to(frames.dtype)
            )
            if frame_mask is not None:
                frame_mask = gather(frame_mask)
            energies = self.energy.rows(
                gather(frame_side), text_side, frame_mask
            )  # (b, B)
            labels = PairLabels(energies, self.same_video, positives, share)
            pairs = self.sampler.sample(
                self.energy.gradient, energies.shape[1], noise, share.rows
            )
            if self.training:
                self.sampler.store(*(gather(x) for x in pairs))
            sampled = gather(self.energy.matching(*pairs))  # (B,)
            high = torch.stack([sampled.mean(), sampled.square().mean()])
            positive, negative = self._means(energies, labels)
            loss = self.contrast(positive[:2], high)
            both = (loss + self.contrast(positive[:2], negative[:2])) / 2
            return torch.where(negative[2] > 0, both, loss)

    @staticmethod
    def _means(energies: Tensor, labels: PairLabels) -> Tensor:
        """Mean, mean square and number of positives and negatives, (2, 3).

        Of the joint batch; zeros where there is no pair.
        """
        rows = slice(None)
        positive, ignored = labels.positive(rows), labels.ignored(rows)
        if positive is None:
            positive = torch.zeros_like(energies, dtype=torch.bool)
            labels.share.matching(positive).fill_(True)
        negative = ~positive if ignored is None else ~(positive | ignored)
        sums = []
        for kind in (positive, negative):
            own = energies.masked_fill(~kind, 0.0)
            number = kind.sum().to(energies.dtype)
            sums.append(torch.stack([own.sum(), own.square().sum(), number]))
        total = labels.share.sum(torch.stack(sums))  # (2, 3)
        number = total[:, 2:]
        return torch.cat([total[:, :2] / number.clamp(min=1), number], dim=1)
