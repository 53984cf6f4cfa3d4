"""The training objective of EagleNet by brute force.

A plain transcription of the formulas, vectorised over all pairs at once: the
yardstick of the numbers, the time and the memory of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from tools.benchmark.reference.brute_force import Weights, score_pairs
from tools.benchmark.reference.brute_force_energy import (
    BruteForceEnergy,
    LangevinNoise,
)
from tools.benchmark.reference.release_weights import (
    graph_layers,
    is_relational,
    release_names,
    release_weights,
)

ENERGIES = {
    'MLPEnergy': 'mlp',
    'BilinearEnergy': 'bilinear',
    'CosineEnergy': 'cossim',
}
LOSSES = ('PairwiseSigmoidLoss', 'InfoNCELoss')


def sigmoid_loss(scores: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """``-1/B sum_ij log sigmoid(y_ij z_ij)`` of scores ``(B, B)``."""
    z = log_scale.exp() * scores + bias
    y = 2 * torch.eye(len(z), dtype=z.dtype, device=z.device) - 1
    return -F.logsigmoid(y * z).sum() / len(z)


def info_nce_loss(scores: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of rows and columns of ``(B, B)``, averaged."""
    z = log_scale.exp() * scores
    rows, columns = z.log_softmax(dim=1), z.log_softmax(dim=0)
    return -(rows.diagonal().mean() + columns.diagonal().mean()) / 2


def unit(x: Tensor) -> Tensor:
    """Bring vectors to unit length."""
    return x / x.norm(dim=-1, keepdim=True)


def score_options(head: EagleNetHead) -> dict[str, Any]:
    """Options of ``score_pairs`` that give the head's scores."""
    last: Any = head.graph.last
    options = dict(
        layers=graph_layers(head),
        heads=last.num_heads,
        pooling_heads=head.pooling.num_heads,
    )
    options['slope'] = head.graph.slope
    if is_relational(head):
        return dict(options, graph='rgat')
    return dict(options, graph='gat', version=head.graph.version)


@torch.no_grad()
def score_by_brute_force(
    head: EagleNetHead, text: Tensor, frames: Tensor, rows: int
) -> Tensor:
    """Score by the reference, ``rows`` texts at once, shape ``(Bt, Bv)``."""
    weights, options = release_weights(head), score_options(head)
    noise = head.noise_table[:, None]  # (S, 1, D)
    scores = [
        score_pairs(
            part,
            frames,
            noise.expand(-1, len(part) * len(frames), -1),
            weights,
            **options,
        )['logits']
        for part in text.split(rows)
    ]
    return torch.cat(scores)


def energy_of(head: EagleNetHead) -> BruteForceEnergy:
    """Build the reference of the head's energy loss, its buffer included."""
    loss: Any = head.loss_energy
    sampler = loss.sampler
    energy = BruteForceEnergy(
        head.num_frames,
        head.embed_dim,
        ENERGIES[type(loss.energy).__name__],
        loss.energy.reduction,
        regularization=loss.regularization,
        num_steps=sampler.num_steps,
        step_size=sampler.step_size,
        noise_std=sampler.noise_std,
        buffer_size=sampler.buffer_size,
        replay_fraction=sampler.replay_fraction,
        replay_unfilled=sampler.replay_unfilled,
    )
    energy.to(sampler.replay_video)
    for name, buffer in energy.named_buffers():
        buffer.copy_(getattr(sampler, name))
    return energy


class BruteForceObjective(torch.nn.Module):
    """Losses of a training step, every pair expanded.

    It takes weights, options and replay buffer of a head, and then goes its
    own way. Its parameters have the names of the release with ``/`` for the
    dots; :attr:`weights` has them with dots. Dropout acts in training, unless
    :meth:`switch_dropout` turns it off.

    Args:
        head (EagleNetHead): Gives everything.

    Raises:
        ValueError: If the head has what the formulas do not have, frame masks
            or another loss.
    """

    def __init__(self, head: EagleNetHead) -> None:
        super().__init__()
        match: Any = head.loss_match
        self.match_name = type(match).__name__
        if self.match_name not in LOSSES:
            raise ValueError(
                f'The reference knows the losses {LOSSES}, but the head has '
                f'loss_match={self.match_name}.'
            )
        if head.use_frame_mask:
            raise ValueError(
                'The reference masks no frames, but the head has '
                'use_frame_mask=True. Build the head without.'
            )
        self.own = torch.nn.ParameterDict(
            {
                name.replace('.', '/'): torch.nn.Parameter(value.clone())
                for name, value in release_weights(head).items()
            }
        )
        learnt = dict(head.named_parameters())
        for theirs, ours in release_names(head).items():
            parameter = self.own[theirs.replace('.', '/')]
            parameter.requires_grad_(learnt[ours].requires_grad)
        self.prior = head.candidate_noise.prior
        self.prior_std = head.candidate_noise.std
        self.num_candidates = head.candidate_noise.num_candidates
        self.options = score_options(head)
        self.dropout: dict[str, Any] = dict(
            graph_dropout=head.graph.dropout,
            pooling_dropout=head.pooling.dropout,
        )
        self.dropout_is_on = True
        self.match_weight = match.loss_weight
        self.support_weight = head.support_weight
        self.energy_weight = head.energy_weight
        self.energy_support_weight = head.energy_support_weight
        self.energy = None if head.loss_energy is None else energy_of(head)
        self.train(head.training)

    @property
    def weights(self) -> Weights:
        """The parameters under the release's names."""
        return {
            name.replace('/', '.'): value for name, value in self.own.items()
        }

    def switch_dropout(self, on: bool) -> BruteForceObjective:
        """Turn dropout on or off, and return itself."""
        self.dropout_is_on = on
        return self

    def match(self, scores: Tensor, weights: Weights) -> Tensor:
        """Loss on a score matrix ``(B, B)``."""
        if self.match_name == 'InfoNCELoss':
            loss = info_nce_loss(scores, weights['clip.logit_scale'])
        else:
            loss = sigmoid_loss(
                scores,
                weights['loss_fct.temp_prior'],
                weights['loss_fct.bias'],
            )
        return self.match_weight * loss

    def draw(self, like: Tensor) -> Tensor:
        """Draw candidate noise, shape ``(S, P, D)``."""
        size, width = like.shape
        shape = (self.num_candidates, size * size, width)
        if self.prior == 'normal':
            return self.prior_std * torch.randn(
                shape, dtype=like.dtype, device=like.device
            )
        return torch.rand(shape, dtype=like.dtype, device=like.device)

    def forward(
        self,
        text: Tensor,
        frames: Tensor,
        noise: Tensor | None = None,
        langevin_noise: LangevinNoise | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses, factors included.

        Args:
            text (Tensor): Shape ``(B, D)``.
            frames (Tensor): Shape ``(B, F, D)``.
            noise (Tensor, optional): Of the candidates, pair ``i * B + j`` is
                text ``i`` with video ``j``, shape ``(S, B * B, D)``. Default:
                None, drawn.
            langevin_noise (LangevinNoise, optional): Of the chains. Default:
                None, PyTorch's.

        Returns:
            dict[str, Tensor]: ``loss_match``, and as far as they are in use
            ``loss_support``, ``loss_energy``, ``loss_energy_support``.
        """
        weights = self.weights
        dropout = self.dropout if self.training and self.dropout_is_on else {}
        pairs = score_pairs(
            text,
            frames,
            self.draw(text) if noise is None else noise,
            weights,
            **self.options,
            **dropout,
        )
        losses = {'loss_match': self.match(pairs['logits'], weights)}
        support = None
        if self.support_weight or self.energy_support_weight:
            shape = (len(text), len(frames), -1)
            pooled = unit(pairs['pooled']).view(shape)  # (Bt, Bv, D)
            direction = unit(pooled.mean(dim=0) - text[:, None])
            support = unit(
                direction * pairs['radius'].view(shape) + text[:, None]
            )
            if self.support_weight:
                scores = (support * pooled).sum(dim=-1)
                losses['loss_support'] = self.support_weight * self.match(
                    scores, weights
                )
        if self.energy is None:
            return losses
        if self.energy_weight:
            loss = self.energy(frames, text, weights, langevin_noise)
            losses['loss_energy'] = self.energy_weight * loss
        if support is not None and self.energy_support_weight:
            matching = support.diagonal().T  # (B, D)
            loss = self.energy(frames, matching, weights, langevin_noise)
            losses['loss_energy_support'] = self.energy_support_weight * loss
        return losses
