"""T-MASS: text as a region around the sentence, as wide as the video asks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads.eaglenet_state import CandidateNoise
from eaglenet_mm.models.heads.explanation import (
    PairExplanation,
    explain_by_attention,
)
from eaglenet_mm.models.heads.head_checks import (
    check_text_sizes,
    check_video_sizes,
)
from eaglenet_mm.models.heads.t_mass_objective import TMASSObjective
from eaglenet_mm.models.heads.x_pool_head import SentenceState
from eaglenet_mm.models.layers import (
    FramePooling,
    PooledFramesState,
    StochasticText,
)
from eaglenet_mm.models.layers.stochastic_text import stochastic_cosines
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass
class MassVideoState(Features):
    """What T-MASS needs of ``Bv`` videos.

    Args:
        unit_frames (Tensor): Frames of unit length, shape ``(Bv, F, D)``.
        pooled_frames (PooledFramesState): Keys and values of the pooling.
        own_pooled (Tensor, optional): Videos pooled for their own caption,
            for the published evaluation alone, shape ``(Bv, D)``.
    """

    unit_frames: Tensor
    pooled_frames: PooledFramesState
    own_pooled: Tensor | None = None


@MODELS.register_module()
class TMASSHead(TMASSObjective):
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
        loss_match (dict, optional): Loss on the scores. Default: None.
        support_weight (float): Factor of the same loss on the scores of the
            support text. Default: 0.8, as published for MSR-VTT; 0 for LSMDC
            and DiDeMo.
        memory_budget (int): See the base class. Beyond it the support text
            costs one more pooling of all pairs, and again one backwards.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.

    Raises:
        ValueError: If an option is unknown or out of range.
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
        loss_match: dict | None = None,
        support_weight: float = 0.8,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_match, memory_budget, init_cfg)
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
        self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.use_frame_mask = use_frame_mask
        self.support_weight = support_weight
        self.needs_own_captions = evaluation == 'published'
        self.noise = CandidateNoise(prior, prior_std, num_trials)
        self.stochastic_text = StochasticText(embed_dim, num_frames)
        self.pooling = FramePooling(embed_dim, num_heads, dropout)
        self.register_buffer(
            'noise_table', self.noise.table(embed_dim, noise_seed)
        )

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts of another width."""
        check_text_sizes(self, text, embed_dim=self.embed_dim)

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another size, or without a real frame."""
        check_video_sizes(
            self,
            video,
            embed_dim=self.embed_dim,
            num_frames=self.num_frames,
            needs_real_frames=self.use_frame_mask,
        )

    def reseed(self, seed: int) -> None:
        """Draw the evaluation noise anew."""
        self.noise_table.copy_(self.noise.table(self.embed_dim, seed))

    def prepare_text(self, text: TextFeatures) -> SentenceState:
        """Keep the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return SentenceState(text.embeds)

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

        Args:
            video_state (MassVideoState): Of ``Bv`` videos.
            text (TextFeatures): The caption of each of them.

        Returns:
            MassVideoState: With ``own_pooled``.
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
        self, text_state: SentenceState, video_state: MassVideoState
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
            noise = self.pair_noise(radius)
            cosines, lengths = stochastic_cosines(text, radius, noise, pooled)
            if video_state.own_pooled is None:
                return cosines.amax(dim=-1).T
            best = cosines.argmax(dim=-1, keepdim=True)
            own = F.normalize(video_state.own_pooled, dim=-1).unsqueeze(1)
            published, _ = stochastic_cosines(
                text, radius, noise, own, lengths
            )
            return published.gather(-1, best).squeeze(-1).T

    def pair_noise(self, radius: Tensor) -> Tensor:
        """Noise of the trials, ``(K, D)`` for all pairs or one a pair.

        Args:
            radius (Tensor): Shape ``(Bv, Bt, D)``; gives the type.

        Returns:
            Tensor: Shape ``(K, D)`` or ``(Bv, Bt, K, D)``.
        """
        return self.noise_table.to(radius.dtype)

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Give the attention of each sentence to the frames."""
        return explain_by_attention(
            self.pooling, text, video, self.use_frame_mask
        )

    def bytes_per_pair(self, training: bool) -> int:
        """Tell what one pair takes: vectors of pooling and trials."""
        trials = 0 if training else 4 * self.noise.num_candidates
        return 4 * (self.embed_dim * (10 if training else 8) + trials)
