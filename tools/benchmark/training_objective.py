"""A training step of the head, and of the brute-force objective."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from harness import build_head, precision, random_features
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force_training import BruteForceObjective


def add_objective_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is trained."""
    add = parser.add_argument
    add(
        '--energy',
        choices=('MLPEnergy', 'BilinearEnergy', 'none'),
        default='MLPEnergy',
        help='energy-aware matching',
    )
    add(
        '--energy-support-weight',
        type=float,
        default=1.0,
        help='of the second energy loss, on the support texts; 0 for none',
    )
    add('--memory-budget', type=int, help='bytes; default: that of the head')


def training_head(args: argparse.Namespace, frames: int) -> EagleNetHead:
    """Build the head in training, dropout included."""
    options: dict[str, Any] = dict(loss_match=dict(type='PairwiseSigmoidLoss'))
    if args.energy != 'none':
        options.update(
            loss_energy=dict(
                type='EnergyMatchingLoss', energy=dict(type=args.energy)
            ),
            energy_support_weight=args.energy_support_weight,
        )
    if args.memory_budget:
        options['memory_budget'] = args.memory_budget
    return build_head(args, frames, **options).train()


class TrainingStep:
    """Forward, losses and backward of a batch, features' gradient included."""

    def __init__(
        self, args: argparse.Namespace, frames: int, brute_force: bool
    ) -> None:
        self.args = args
        self.frames = frames
        self.brute_force = brute_force
        head = training_head(args, frames)
        self.module: Any = BruteForceObjective(head) if brute_force else head

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Draw features of a batch that take a gradient."""
        text, video = random_features(self.args, size, size, self.frames)
        return text.embeds.requires_grad_(), video.frames.requires_grad_()

    def losses(self, text: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Compute the losses."""
        if self.brute_force:
            return self.module(text, frames)
        mask = torch.ones(
            frames.shape[:2], dtype=torch.bool, device=frames.device
        )
        return self.module.loss(
            TextFeatures(text), VideoFeatures(frames, mask)
        )

    def __call__(self, text: Tensor, frames: Tensor) -> dict[str, float]:
        """Run the step; gradients of the last one are cleared first."""
        self.module.zero_grad(set_to_none=False)
        text.grad = frames.grad = None
        with precision(self.args):
            losses = self.losses(text, frames)
        terms = {k: v for k, v in losses.items() if 'loss' in k}
        torch.stack(
            [value.float() for value in terms.values()]
        ).sum().backward()
        return {name: value.item() for name, value in terms.items()}

    def kept_bytes(self, text: Tensor, frames: Tensor) -> int:
        """Count what autograd keeps between forward and backward.

        Parameters and inputs, which are there anyway, are left out, and so
        is what the backward pass computes again.
        """
        there = {
            x.untyped_storage().data_ptr()
            for x in (text, frames, *self.module.parameters())
        }
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in there:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with precision(self.args), hooks:
            losses = self.losses(text, frames)
        # alive until here, so no two of them had the same place in memory
        del losses
        return sum(kept.values())
