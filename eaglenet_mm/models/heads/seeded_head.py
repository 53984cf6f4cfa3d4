"""Heads whose training draws random numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from mmengine.dist import broadcast
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom
from eaglenet_mm.structures import TextFeatures, VideoFeatures


class SeededHead(BasePairHead):
    """Base of heads with random numbers that do not depend on the process.

    Random numbers of training are a hash of a key, the number of the step and
    the place in the joint batch: they are the same in one process and in
    several, in whatever chunks, and when a chunk is computed again. The key
    and the step are kept in the checkpoint.

    In training mode ``score`` may take the random numbers of its pairs, a
    :class:`PairRandom`: give it a third argument ``random=None`` and use
    ``batch.map(self.score)`` in ``loss``.

    Args:
        *args: See :class:`BasePairHead`.
        **kwargs: Likewise.

    Example:
        >>> from eaglenet_mm.models.heads import XPoolHead
        >>> head = XPoolHead(embed_dim=32).train()
        >>> head.next_random().step, head.next_random().step
        (0, 1)
    """

    random_key: Tensor
    #: What the axes of ``noise_table`` are called in the config, for heads
    #: that keep the noise of their evaluation in the checkpoint.
    noise_axes: ClassVar[dict[int, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # seed of the run and number of the next training step
        self.register_buffer(
            'random_key', torch.tensor([torch.initial_seed() % 2**62, 0])
        )
        self._key_is_shared = False

    def next_random(self) -> KeyedRandom:
        """Random numbers of this step, the same in every process."""
        if not self._key_is_shared:
            # processes may have been seeded differently
            broadcast(self.random_key)
            self._key_is_shared = True
        random = KeyedRandom(*self.random_key.tolist())
        if self.training:
            self.random_key[1] += 1
        return random

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep own numbers where a checkpoint of others has none."""
        for name in ('random_key', 'noise_table'):
            if hasattr(self, name):
                state_dict.setdefault(prefix + name, getattr(self, name))
        if self.noise_axes:
            self._check_noise_table(state_dict, prefix + 'noise_table', args)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_noise_table(
        self, state_dict: dict, key: str, args: Any
    ) -> None:
        """Say which option differs where a table of noise does not fit."""
        own: Any = self.noise_table
        given = state_dict[key]
        if given.shape == own.shape or given.dim() != own.dim():
            return
        different = {
            option: (given.shape[axis], own.shape[axis])
            for axis, option in self.noise_axes.items()
            if given.shape[axis] != own.shape[axis]
        }
        for option, (theirs, ours) in different.items():
            args[-1].append(  # messages of what does not fit
                f'{key} has the evaluation noise of {option}={theirs}, but '
                f'{type(self).__name__} was built with {option}={ours}: set '
                f'model.head.{option}={theirs} to use this checkpoint.'
            )
        if different:
            state_dict[key] = own  # said already, in words


class PairDropoutHead(SeededHead):
    """Deprecated: a :class:`SeededHead` whose ``score`` takes ``random``.

    Example:
        >>> issubclass(PairDropoutHead, SeededHead)
        True
    """

    @abstractmethod
    def score_pairs(
        self,
        text_state: Any,
        video_state: Any,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Score every text against every video, in training at random."""

    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score as in evaluation; see the base class."""
        return self.score_pairs(text_state, video_state)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        batch = self.open_batch(text, video)
        return self.match_losses(batch.map(self.score_pairs), batch.share)
