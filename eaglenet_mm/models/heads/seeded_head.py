"""Heads whose training draws random numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from mmengine.dist import broadcast
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.heads.batch_checks import check_batch
from eaglenet_mm.models.heads.pair_chunks import score_recomputing
from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features


class SeededHead(BasePairHead):
    """A head with random numbers that do not depend on the process.

    Random numbers of training are a hash of a key, the number of the step and
    the place in the joint batch: they are the same in one process and in
    several, in whatever chunks, and when a chunk is computed again. The key
    and the step are kept in the checkpoint.

    Args:
        loss_match (dict, optional): See the base class.
        memory_budget (int): See the base class.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.
    """

    random_key: Tensor
    #: What the axes of ``noise_table`` are called in the config, for heads
    #: that keep the noise of their evaluation in the checkpoint.
    noise_axes: ClassVar[dict[int, str]] = {}

    def __init__(
        self,
        loss_match: dict | None = None,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_match, memory_budget, init_cfg)
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

    def pairs_with_grad(
        self,
        function: Any,
        text_state: Any,
        video_state: Any,
        rows: range,
        random: KeyedRandom,
    ) -> Tensor:
        """Compute something of all pairs for training, within the budget.

        Args:
            function (Callable): Takes states and their :class:`PairRandom`
                (None outside of training), as :meth:`score_pairs` does;
                gives shape ``(Bt, Bv, ...)``.
            text_state: Of the own texts.
            video_state: Of all videos.
            rows (range): Places of the own texts in the joint batch.
            random (KeyedRandom): Random numbers of the step.

        Returns:
            Tensor: With gradient, shape ``(Bt, Bv, ...)``.

        Raises:
            ValueError: If the budget does not hold one pair.
        """
        self.check_budget(1)

        def of_block(texts: slice, videos: slice) -> Tensor:
            drawn = None
            if self.training:
                columns = range(len(video_state))[videos]
                drawn = PairRandom(random, rows[texts], columns)
            return function(
                text_state.index_select(texts),
                video_state.index_select(videos),
                drawn,
            )

        blocks = list(
            self.chunks(
                len(text_state), len(video_state), self.memory_budget, True
            )
        )
        return score_recomputing(of_block, blocks)

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
    """A head that drops out within pairs.

    States once how pairs are scored, with random numbers or without; scoring
    in evaluation and the loss follow.
    """

    @abstractmethod
    def score_pairs(
        self,
        text_state: Any,
        video_state: Any,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Score every text against every video, in training at random.

        Args:
            text_state: Of :meth:`prepare_text`, ``Bt`` rows.
            video_state: Of :meth:`prepare_video`, ``Bv`` rows.
            random (PairRandom, optional): Random numbers of these pairs.
                Default: None, none, as in evaluation.

        Returns:
            Tensor: Shape ``(Bt, Bv)``.
        """

    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score as in evaluation; see the base class."""
        return self.score_pairs(text_state, video_state)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        share = check_batch(text, video, self.check_features)
        random = self.next_random()
        scores = self.pairs_with_grad(
            self.score_pairs,
            self.prepare_text(text),
            gather_features(self.prepare_video(video)),
            share.rows,
            random,
        )
        return self.match_losses(scores, share)
