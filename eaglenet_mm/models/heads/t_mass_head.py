"""T-MASS: text as a region around the sentence, as wide as the video asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import (
    PairExplanation,
    SeededHead,
    frame_cosines,
)
from eaglenet_mm.models.layers import (
    FramePooling,
    PairRandom,
    PooledFramesState,
    StochasticText,
)
from eaglenet_mm.models.layers.stochastic_text import CandidateNoise
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import (
    EmbedsState,
    Features,
    TextFeatures,
    VideoFeatures,
)
from eaglenet_mm.utils.dist import gather_features, sum_with_grad


@dataclass
class MassVideoState(Features):
    """What T-MASS needs of ``Bv`` videos."""

    unit_frames: Tensor  # (Bv, F, D)
    pooled_frames: PooledFramesState
    # (Bv, D), pooled for the own caption; for the published evaluation alone
    own_pooled: Tensor | None = None


@dataclass
class _MovedTexts(Features):
    """Sentences, and texts around them."""

    embeds: Tensor  # (B, D), as they leave the encoder
    moved: Tensor  # (B, K, D), compared with the videos the sentence pools


@MODELS.register_module()
class TMASSHead(SeededHead):
    """Cosine of the best of some texts around a sentence and its video.

    Implements `T-MASS <https://arxiv.org/abs/2403.17998>`_: the pooling of
    X-Pool by the plain sentence, a radius from the cosines of sentence and
    frames, and stochastic texts within it. Training adds a support text,
    pushed from the sentence towards the mean of the pooled videos by the
    radius. Evaluation takes the best of ``num_trials`` stochastic texts.

    Differs from the release: a score depends on its pair alone. **The
    published evaluation compares every query with gallery videos that were
    pooled with their own ground-truth caption**, and so knows which video is
    whose; ``evaluation='published'`` does that, to reproduce published
    numbers, and warns. Evaluation noise comes from one table, kept in the
    checkpoint and shared by all pairs; training noise depends on seed, step
    and place in the joint batch; the support text is that of the batch of
    all processes; padded frames can be masked.

    Args:
        embed_dim (int): Width ``D``.
        num_frames (int): Frames ``F`` of every video, padding included.
        num_trials (int): Stochastic texts of a pair in evaluation.
            Default: 20.
        prior (str): Noise, ``'uniform01'`` or ``'normal'``.
            Default: ``'uniform01'``.
        prior_std (float): Standard deviation of ``'normal'``. Default: 1.
        num_heads (int): Heads of the pooling. Default: 1.
        dropout (float): Rate of the pooling. Default: 0.3.
        use_frame_mask (bool): Leave padded frames out. Default: True.
        evaluation (str): ``'pairwise'`` or ``'published'``.
            Default: ``'pairwise'``.
        noise_seed (int): Seed of the evaluation noise. Default: 0.
        support_weight (float): Factor of the same loss on the scores of the
            support text. Default: 0.8, as published for MSR-VTT; 0 for LSMDC
            and DiDeMo.
        **kwargs: Of :class:`BasePairHead`: ``loss_match``, ``memory_budget``
            and ``init_cfg``. Beyond the budget the support text costs one
            more pooling of all pairs, and again one backwards.

    Raises:
        ValueError: If an option is unknown or out of range.

    Example:
        >>> TMASSHead(embed_dim=32, num_frames=8)(text, video).shape
        torch.Size([3, 4])
    """

    noise_table: Tensor
    noise_axes: ClassVar[dict[int, str]] = {0: 'num_trials'}

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        num_trials: int = 20,
        prior: str = 'uniform01',
        prior_std: float = 1.0,
        num_heads: int = 1,
        dropout: float = 0.3,
        use_frame_mask: bool = True,
        evaluation: str = 'pairwise',
        noise_seed: int = 0,
        support_weight: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim,
            num_frames=num_frames,
            # vectors of the pooling, and numbers of the trials
            numbers_per_pair=(8 * embed_dim + 4 * num_trials, 10 * embed_dim),
            **kwargs,
        )
        if evaluation not in ('pairwise', 'published') or num_trials < 1:
            raise ValueError(
                "evaluation must be 'pairwise' or 'published' and num_trials "
                f'at least 1, but got {evaluation!r} and {num_trials}.'
            )
        if support_weight < 0 or prior_std < 0:
            raise ValueError(
                'support_weight and prior_std must be at least 0, but got '
                f'{support_weight} and {prior_std}.'
            )
        if evaluation == 'published':
            warnings.warn(
                "TMASSHead(evaluation='published') pools each gallery video "
                'with its own ground-truth caption: scores use the answer and '
                'must not be compared with those of other methods. Use '
                "evaluation='pairwise' for a sound evaluation.",
                stacklevel=2,
            )
        self.use_frame_mask = self.needs_real_frames = use_frame_mask
        self.support_weight = support_weight
        self.needs_own_captions = evaluation == 'published'
        self.noise = CandidateNoise(prior, prior_std, num_trials)
        self.stochastic_text = StochasticText(embed_dim, num_frames)
        self.pooling = FramePooling(embed_dim, num_heads, dropout)
        self.register_buffer(
            'noise_table', self.noise.table(embed_dim, noise_seed)
        )

    def reseed(self, seed: int) -> None:
        """Draw the evaluation noise anew."""
        width = self.noise_table.shape[1]
        self.noise_table.copy_(self.noise.table(width, seed))

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """Keep the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(text.embeds)

    def prepare_video(self, video: VideoFeatures) -> MassVideoState:
        """Compute unit frames, and keys and values of the pooling."""
        self.check_video(video)
        mask = video.frame_mask if self.use_frame_mask else None
        return MassVideoState(
            unit_frames=self.stochastic_text.unit_frames(
                at_least_float32(video.frames), mask
            ),
            pooled_frames=self.pooling.prepare_frames(video.frames, mask),
        )

    def attach_captions(
        self, video_state: MassVideoState, text: TextFeatures
    ) -> MassVideoState:
        """Pool each video with its own caption, for the published evaluation.

        Texts are the captions of the videos, row by row.
        """
        own = torch.cat(
            [
                self.pooling(caption.embeds, video.pooled_frames)[0]
                for caption, video in zip(
                    text.split(1), video_state.split(1), strict=True
                )
            ]
        )
        return MassVideoState(
            video_state.unit_frames, video_state.pooled_frames, own
        )

    def score(
        self, text_state: EmbedsState, video_state: MassVideoState
    ) -> Tensor:
        """Take the best stochastic text of each pair, shape ``(Bt, Bv)``."""
        if self.needs_own_captions and video_state.own_pooled is None:
            raise ValueError(
                "TMASSHead(evaluation='published') needs the caption of each "
                'video of the gallery, which a search does not have. Evaluate '
                'all pairs (RetrievalTestLoop without shortlist), or set '
                "evaluation='pairwise'."
            )
        pooled = self.pooling(text_state.embeds, video_state.pooled_frames)
        with torch.autocast(pooled.device.type, enabled=False):
            text = at_least_float32(text_state.embeds)
            radius = self.stochastic_text(
                text, video_state.unit_frames
            ).exp()  # (Bv, Bt, D)
            pooled = F.normalize(pooled, dim=-1)
            noise = self.noise_table.to(radius.dtype)
            cosines, lengths = _stochastic_cosines(text, radius, noise, pooled)
            if video_state.own_pooled is None:
                return cosines.amax(dim=-1).T
            best = cosines.argmax(dim=-1, keepdim=True)
            own = F.normalize(video_state.own_pooled, dim=-1).unsqueeze(1)
            published, _ = _stochastic_cosines(
                text, radius, noise, own, lengths
            )
            return published.gather(-1, best).squeeze(-1).T

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the loss of stochastic and of support texts.

        Where the pooled videos of all pairs fit ``memory_budget`` they are
        kept. Beyond it they are pooled chunk by chunk, twice, and again in
        the backward pass: the support text of a pair needs the mean of its
        video over all sentences before it can be compared with any video.

        Returns:
            dict[str, Tensor]: ``loss_match`` and, if it has a weight,
            ``loss_support``; ``pos_score`` and ``neg_score`` to watch.
        """
        batch = self.open_batch(text, video)
        rows, grid = batch.share.rows, batch.grid
        frames = gather_features(batch.video.pooled_frames)

        def pool(texts: Any, videos: Any, random: PairRandom | None) -> Tensor:
            pooled = self.pooling(texts.embeds, videos, random)
            return pooled.transpose(0, 1)  # (b, B, D)

        pooled = grid.map(pool, batch.text, frames) if grid.fits else None

        def over_pairs(
            function: Callable[[Tensor, Tensor], Tensor], moved: Tensor
        ) -> Tensor:
            """Apply a function of moved texts and pooled videos."""
            if pooled is not None:
                return function(moved, pooled)
            return grid.map(
                lambda texts, videos, random: function(
                    texts.moved, pool(texts, videos, random)
                ),
                _MovedTexts(text.embeds, moved),
                frames,
            )

        with torch.autocast(text.embeds.device.type, enabled=False):
            sentences = at_least_float32(text.embeds)
            radius = self.stochastic_text.of_matching(
                sentences, batch.video.unit_frames
            ).exp()  # (b, D)
            noise = self.noise.matching(batch.random, rows, radius[0])
            moved = [sentences + noise * radius]
            if self.support_weight:
                sums = over_pairs(_sum_of_texts, sentences.unsqueeze(1))
                means = sum_with_grad(sums.sum(dim=0)) / sums.shape[1]
                centre = means[rows.start :: rows.step]
                direction = F.normalize(centre - sentences, dim=-1)
                moved.append(sentences + direction * radius)
        cosines = over_pairs(_cosines, torch.stack(moved, dim=1)).unbind(-1)
        losses = self.match_losses(cosines[0], batch.share)
        if self.support_weight:
            losses['loss_support'] = self.support_weight * self.match(
                cosines[1], batch.share
            )
        return losses

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Give the ``'attention'`` of each sentence to the frames."""
        attention = self.pooling.attention(
            text.embeds, self.prepare_video(video).pooled_frames
        )  # (Bv, Bt, F)
        return PairExplanation(
            {
                'attention': attention.transpose(0, 1),
                'cosine': frame_cosines(text, video),
            }
        )


def _sum_of_texts(_: Tensor, pooled: Tensor) -> Tensor:
    """Sum each video over the texts of a chunk, shape ``(1, Bv, D)``."""
    with torch.autocast(pooled.device.type, enabled=False):
        return pooled.sum(dim=0, keepdim=True)


def _cosines(moved: Tensor, pooled: Tensor) -> Tensor:
    """Compare moved texts with their videos, shape ``(Bt, Bv, K)``."""
    with torch.autocast(pooled.device.type, enabled=False):
        pooled = at_least_float32(pooled)
        return torch.stack(
            [
                F.cosine_similarity(
                    text.unsqueeze(1), pooled, dim=-1, eps=1e-12
                )
                for text in moved.unbind(1)
            ],
            dim=-1,
        )


def _stochastic_cosines(
    text: Tensor,  # (Bt, D)
    radius: Tensor,  # (Bv, Bt, D)
    noise: Tensor,  # (K, D) or (Bv, Bt, K, D)
    unit_video: Tensor,  # (Bv, Bt, D) or (Bv, 1, D)
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosines of the stochastic texts of pairs, none of which is built.

    With ``t_k = t + e_k * R`` the products ``t_k . p`` and ``|t_k|^2`` are
    sums over channels that are linear in ``e_k`` and its square. Gives
    cosines and lengths, ``(Bv, Bt, K)``; lengths serve a further call.
    """

    def along_noise(values: Tensor, factors: Tensor) -> Tensor:
        if factors.dim() == 2:
            return values @ factors.T
        return (factors @ values.unsqueeze(-1)).squeeze(-1)

    if lengths is None:
        squares = (
            text.square().sum(dim=-1)[:, None]
            + 2 * along_noise(radius * text, noise)
            + along_noise(radius.square(), noise.square())
        )
        lengths = squares.clamp(min=1e-24).sqrt()
    products = (unit_video * text).sum(dim=-1, keepdim=True) + along_noise(
        radius * unit_video, noise
    )
    return products / lengths, lengths
