"""T-MASS: stochastic text embeddings within a video-dependent radius."""

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
    """State of ``Bv`` videos."""

    unit_frames: Tensor  # L2-normalised, (Bv, F, D)
    pooled_frames: PooledFramesState
    # pooled for its own caption, in the published evaluation only, (Bv, D)
    own_pooled: Tensor | None = None


@dataclass
class _MovedTexts(Features):
    """Sentences and texts derived from them."""

    embeds: Tensor  # encoder output, conditions the pooling, (B, D)
    moved: Tensor  # compared with the pooled videos, (B, K, D)


@MODELS.register_module()
class TMASSHead(SeededHead):
    """Best cosine similarity of stochastic texts and the pooled video.

    Implements `T-MASS <https://arxiv.org/abs/2403.17998>`_: X-Pool's frame
    pooling conditioned on the sentence, a radius from the cosine similarities
    of sentence and frames, and stochastic texts within that radius. Training
    adds a support text, moved from the sentence towards the mean pooled video
    by the radius. Evaluation takes the best of ``num_trials`` stochastic
    texts.

    Differs from the release: a score depends only on its pair. **The
    published evaluation compares every query with gallery videos pooled for
    their own ground-truth caption**, which leaks the answer;
    ``evaluation='published'`` reproduces it, with a warning. Evaluation noise
    is a table, stored in the checkpoint and shared by all pairs; training
    noise depends on seed, step and position in the joint batch; the support
    text uses the batch of all processes; padded frames can be masked.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video, including padding.
        num_trials (int): Stochastic texts per pair in evaluation.
            Default: 20.
        prior (str): Noise, ``'uniform01'`` or ``'normal'``.
            Default: ``'uniform01'``.
        prior_std (float): Standard deviation of ``'normal'``. Default: 1.
        num_heads (int): Attention heads of the pooling. Default: 1.
        dropout (float): Dropout rate of the pooling. Default: 0.3.
        use_frame_mask (bool): Mask padded frames. Default: True.
        evaluation (str): ``'pairwise'`` or ``'published'``.
            Default: ``'pairwise'``.
        noise_seed (int): Seed of the evaluation noise. Default: 0.
        support_weight (float): Weight of ``loss_match`` on the scores of the
            support text. Default: 0.8, as published for MSR-VTT; LSMDC and
            DiDeMo use 0.
        **kwargs: Options of :class:`BasePairHead`. Above ``memory_budget``
            the support text costs a second pooling of all pairs, forward and
            backward.

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
            # activations of the pooling, and scores of the trials
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
        """Redraw the evaluation noise."""
        width = self.noise_table.shape[1]
        self.noise_table.copy_(self.noise.table(width, seed))

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """Keep the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(text.embeds)

    def prepare_video(self, video: VideoFeatures) -> MassVideoState:
        """Precompute normalised frames, and keys and values of the pooling."""
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
        """Pool video ``i`` for text ``i``, for the published evaluation."""
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
        """Score the best stochastic text of each pair, ``(Bt, Bv)``."""
        if self.needs_own_captions and video_state.own_pooled is None:
            raise ValueError(
                "TMASSHead(evaluation='published') needs the caption of each "
                'gallery video, which a search does not have. Evaluate '
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
        """Compute the loss of stochastic and support texts.

        The pooled videos of all pairs are kept if they fit ``memory_budget``.
        Otherwise they are pooled twice, in chunks, and recomputed in the
        backward pass: a support text needs the mean of its video over all
        sentences before it can be scored.

        Returns:
            dict[str, Tensor]: ``loss_match``, ``loss_support`` unless its
            weight is 0, and the statistics of :meth:`match_losses`.
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
        """Return the attention and cosine similarity of each frame."""
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
    """Cosine similarities of derived texts and videos, ``(Bt, Bv, K)``."""
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
    """Cosine similarities and norms of stochastic texts, ``(Bv, Bt, K)``.

    The texts ``t_k = t + e_k * R`` are never materialised: ``t_k . p`` and
    ``|t_k|^2`` are linear in ``e_k`` and its square. Pass the norms to the
    next call to reuse them.
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
