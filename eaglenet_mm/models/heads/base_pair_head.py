"""What every head has in common: the contract, chunks and own rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.heads.batch_checks import check_batch
from eaglenet_mm.models.heads.chunked_scoring import ChunkedScoring
from eaglenet_mm.models.heads.explanation import (
    PairExplanation,
    explain_by_cosines,
)
from eaglenet_mm.models.heads.shortlist import (
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.losses import Share
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features


class BasePairHead(ChunkedScoring, BaseModule, ABC):
    """Scores every text against every video; the base of all methods.

    A method states what it prepares of each side and how it scores pairs. The
    score of a pair must not depend on what else is in the batch. Chunking,
    the sharing of rows between processes and the plain loss come for free.

    Args:
        loss_match (dict, optional): Config of the loss on the score matrix.
            Only training needs it. A loss of another package gets the joint
            matrix, one with ``takes_share = True`` its own rows and a
            :class:`~eaglenet_mm.models.losses.Share`. Default: None.
        memory_budget (int): Bytes that the intermediate tensors of pairs may
            take in training; what does not fit is computed again in the
            backward pass. Evaluation cuts chunks of one constant size, so
            that scores are the same to the last bit whatever is set.
            Default: 512 MiB.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.
    """

    #: Whether evaluation shows the head the caption of each gallery video, as
    #: a published protocol may want; no sound one does.
    needs_own_captions = False
    #: What the head reads besides sentences and frames. A retriever refuses
    #: encoders that state not to give it (``output_tokens=False``).
    needs_tokens = False
    needs_patches = False

    def __init__(
        self,
        loss_match: dict | None = None,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not isinstance(memory_budget, int) or memory_budget <= 0:
            raise ValueError(
                'memory_budget is a positive number of bytes, but got '
                f'{memory_budget!r}.'
            )
        self.memory_budget = memory_budget
        self.loss_match = (
            None if loss_match is None else MODELS.build(loss_match)
        )

    @abstractmethod
    def prepare_text(self, text: TextFeatures) -> Any:
        """Compute what depends on the texts alone.

        Args:
            text (TextFeatures): Features of ``Bt`` texts.

        Returns:
            Any: A :class:`~eaglenet_mm.structures.Features` of ``Bt`` rows.
        """

    @abstractmethod
    def prepare_video(self, video: VideoFeatures) -> Any:
        """Compute what depends on the videos alone; an index stores this.

        Args:
            video (VideoFeatures): Features of ``Bv`` videos.

        Returns:
            Any: A :class:`~eaglenet_mm.structures.Features` of ``Bv`` rows.
        """

    @abstractmethod
    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score every text against every video.

        Returns:
            Tensor: Shape ``(Bt, Bv)``, higher is better, no temperature.
        """

    @abstractmethod
    def bytes_per_pair(self, training: bool) -> int:
        """Tell what the intermediate tensors of one pair take in float32.

        Args:
            training (bool): Whether they are kept for a backward pass.
        """

    def check_features(self, text: TextFeatures, video: VideoFeatures) -> None:
        """Refuse features that do not fit the head.

        The loss asks before it prepares anything, so that processes can
        agree on an error.

        Raises:
            ValueError: If features do not fit.
        """
        self.check_text(text)
        self.check_video(video)

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts that do not fit; by default any are taken."""

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos that do not fit; by default any are taken."""

    def forward(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Score features, shape ``(Bt, Bv)``."""
        return self.score(self.prepare_text(text), self.prepare_video(video))

    def reseed(self, seed: int) -> None:
        """Draw the random numbers of the evaluation anew, if there are any.

        Args:
            seed (int): Seed of the new numbers.
        """

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss of matching texts and videos.

        Text ``i`` belongs to video ``i``. With several processes every
        process passes its own share, of equal size, prepares it, and scores
        the rows of its own texts only; the loss is that of the joint batch.

        Args:
            text (TextFeatures): Of the own texts.
            video (VideoFeatures): Of the own videos. Losses learn from their
                ``video_ids`` which other pairs are of the same video.

        Returns:
            dict[str, Tensor]: Losses, and scores to watch.

        Raises:
            ValueError: If the sides differ in number, processes differ in
                their share, features are not finite, the head has no
                ``loss_match`` or the memory budget is too small.
        """
        share = check_batch(text, video, self.check_features)
        scores = self.score_with_grad(
            self.prepare_text(text), gather_features(self.prepare_video(video))
        )
        return self.match_losses(scores, share)

    def match(self, scores: Tensor, share: Share) -> Tensor:
        """Apply ``loss_match`` to own rows of the matrix, ``(b, B)``."""
        if self.loss_match is None:
            raise ValueError(
                f'{type(self).__name__} has no loss_match, so it cannot be '
                'trained. Name one in the config, for example loss_match=dict('
                "type='PairwiseSigmoidLoss')."
            )
        if getattr(self.loss_match, 'takes_share', False):
            return self.loss_match(scores, share=share)
        return self.loss_match(share.gather(scores))

    def match_losses(self, scores: Tensor, share: Share) -> dict[str, Tensor]:
        """Match own rows of the matrix, and tell what to watch.

        Args:
            scores (Tensor): Own rows, shape ``(b, B)``.
            share (Share): Which rows they are.

        Returns:
            dict[str, Tensor]: ``loss_match``; the mean scores of matching
            pairs, ``pos_score``, and of all others, ``neg_score``; and where
            videos have ids how many pairs of items of the joint batch are of
            one video, ``same_video_pairs``.
        """
        own, size = scores.detach(), scores.shape[1]
        sums = share.sum(torch.stack([share.matching(own).sum(), own.sum()]))
        watched = {'pos_score': sums[0] / size}
        if size > 1:
            watched['neg_score'] = (sums[1] - sums[0]) / (size**2 - size)
        if share.positives is not None:
            watched['same_video_pairs'] = count_pairs(share.positives)
        return {'loss_match': self.match(scores, share), **watched}

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Tell what the head looks at in every pair, for pictures.

        By default the cosine of the sentence and each frame, as the encoders
        give them. A head with weights of its own overrides this. Does not
        change the state of the head.

        Args:
            text (TextFeatures): Features of ``Bt`` texts.
            video (VideoFeatures): Features of ``Bv`` videos.

        Returns:
            PairExplanation: Named weights of frames, shape ``(Bt, Bv, F)``.
        """
        return explain_by_cosines(text, video)

    def shortlist_text(self, text: TextFeatures) -> Tensor:
        """Give the text side of the cheap score that makes shortlists.

        A head that overrides this overrides :meth:`shortlist_video` too.

        Args:
            text (TextFeatures): Features of ``Bt`` texts.

        Returns:
            Tensor: Vectors of unit length at most, shape ``(Bt, C)``.
        """
        return unit_sentences(text)

    def shortlist_video(self, video: VideoFeatures) -> Tensor:
        """Give the video side; the inner product is the cheap score.

        Args:
            video (VideoFeatures): Features of ``Bv`` videos.

        Returns:
            Tensor: Vectors of unit length at most, shape ``(Bv, C)``: by
            default the mean of the real frames, without parameters.
        """
        return mean_of_unit_frames(video)


def count_pairs(ids: Tensor) -> Tensor:
    """Count the pairs of equal ids, without waiting for the device."""
    ordered = ids.sort().values
    # each id pairs with the equal ones before it
    before = torch.arange(len(ids), device=ids.device)
    before = before - torch.searchsorted(ordered, ordered)
    return before.sum().float()
