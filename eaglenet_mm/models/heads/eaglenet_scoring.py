"""Preparing sides and scoring pairs, as EagleNet does it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.heads.compiled import CompiledScore
from eaglenet_mm.models.heads.eaglenet_objective import EagleNetObjective
from eaglenet_mm.models.heads.eaglenet_state import (
    EagleNetTextState,
    EagleNetVideoState,
    check_frames,
)
from eaglenet_mm.models.layers import (
    FramePooling,
    KeyedRandom,
    PairRandom,
    PlainGraph,
    RelationalGraph,
    StochasticText,
    Workspace,
)
from eaglenet_mm.models.layers.stochastic_text import CandidateNoise
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import TextFeatures, VideoFeatures


class EagleNetScoring(EagleNetObjective):
    """Scores of EagleNet, sections 3.1 and 3.2 of the paper.

    The part of :class:`EagleNetHead` that runs its layers; the head builds
    them.
    """

    # set by the head
    embed_dim: int
    num_frames: int
    noise: str
    noise_seed: int | None
    noise_draws: int
    noise_table: Tensor
    candidate_noise: CandidateNoise
    stochastic_text: StochasticText
    graph: RelationalGraph | PlainGraph
    pooling: FramePooling
    frame_embedding: nn.Parameter | None
    compiled_score: CompiledScore | None

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts of another width.

        Raises:
            ValueError: If the width differs.
        """
        if text.embeds.shape[-1] != self.embed_dim:
            raise ValueError(
                f'The head was built for embed_dim={self.embed_dim}, but got '
                f'text features of shape {tuple(text.embeds.shape)}.'
            )

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another size.

        Raises:
            ValueError: If the width or the number of frames differs, or a
                video has no real frame while masks are in use.
        """
        mask = video.frame_mask if self.use_frame_mask else None
        check_frames(video.frames, mask, self.num_frames, self.embed_dim)

    def prepare_text(self, text: TextFeatures) -> EagleNetTextState:
        """Compute the text side of the graph, once a sentence."""
        self.check_text(text)
        return EagleNetTextState(
            text.embeds, self.graph.prepare_text(text.embeds)
        )

    def prepare_video(self, video: VideoFeatures) -> EagleNetVideoState:
        """Compute the video side of graph and pooling, once a video.

        Raises:
            ValueError: If the frames do not fit the head, or a video has no
                real frame while masks are in use.
        """
        self.check_video(video)
        frames = video.frames
        mask = video.frame_mask if self.use_frame_mask else None
        nodes = frames
        if self.frame_embedding is not None:
            nodes = frames + self.frame_embedding
        return EagleNetVideoState(
            unit_frames=self.stochastic_text.unit_frames(frames, mask),
            pooled_frames=self.pooling.prepare_frames(frames, mask),
            graph=self.graph.prepare_frames(nodes, mask),
            frame_mask=mask,
        )

    def score(
        self, text_state: EagleNetTextState, video_state: EagleNetVideoState
    ) -> Tensor:
        """Score every text against every video.

        Sections 3.1 and 3.2 of the paper, with evaluation noise and without
        dropout, whatever mode the module is in. With ``noise='table'`` the
        score of a pair depends on that pair alone.

        Args:
            text_state (EagleNetTextState): Of :meth:`prepare_text`.
            video_state (EagleNetVideoState): Of :meth:`prepare_video`.

        Returns:
            Tensor: Cosines, shape ``(Bt, Bv)``.
        """
        return self._score(text_state, video_state, None, None)

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Score as :meth:`score`, with weights and memory of all chunks."""
        folded = self.graph.fold(
            self.num_frames, self.candidate_noise.num_candidates
        )
        if self.compiled_score is None:
            return functools.partial(
                self._score, folded=folded, workspace=Workspace()
            )
        compiled = self.compiled_score
        return lambda text, video: compiled(text, video, folded, None)

    def _score(
        self,
        text_state: EagleNetTextState,
        video_state: EagleNetVideoState,
        folded: Any,
        workspace: Workspace | None,
    ) -> Tensor:
        if not len(text_state) or not len(video_state):
            return text_state.embeds.new_zeros(
                len(text_state), len(video_state)
            )
        noise = self.evaluation_noise(text_state, video_state)
        if self.noise == 'pair':
            self.noise_draws += 1  # fresh at each call: depends on the chunks
        enriched, pooled, _ = self.enrich_and_pool(
            text_state, video_state, noise, folded, workspace=workspace
        )
        return F.cosine_similarity(enriched, pooled, dim=-1, eps=1e-12).T

    def evaluation_noise(
        self, text_state: EagleNetTextState, video_state: EagleNetVideoState
    ) -> Tensor:
        """Give the noise of the table, or that of the pairs that is next.

        Args:
            text_state (EagleNetTextState): Of :meth:`prepare_text`.
            video_state (EagleNetVideoState): Of :meth:`prepare_video`.

        Returns:
            Tensor: Shape ``(S, D)`` or ``(Bv, Bt, S, D)``.
        """
        if self.noise == 'table':
            return self.noise_table
        random = PairRandom(
            KeyedRandom(self.noise_seed or 0, self.noise_draws),
            range(len(text_state)),
            range(len(video_state)),
        )
        return self.pair_noise(random, at_least_float32(text_state.embeds))

    def enrich_and_pool(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        noise: Tensor,
        folded: Any = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Enrich each text for each video, and pool each video for it.

        Args:
            text (EagleNetTextState): Of :meth:`prepare_text`.
            video (EagleNetVideoState): Of :meth:`prepare_video`.
            noise (Tensor): Of the candidates, shape ``(S, D)`` for all pairs
                or ``(Bv, Bt, S, D)``.
            folded (Any, optional): Of the graph's ``fold``. Default: None,
                fold now.
            random (PairRandom, optional): Random numbers of the dropout.
                Default: None, no dropout.
            workspace (Workspace, optional): Memory of other chunks.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Enriched texts, pooled videos and
            radii of the candidates, each of shape ``(Bv, Bt, D)``: pairs are
            ordered by video, which makes the products of a video one.
        """
        enriched, radius, _ = self.enrich(
            text, video, noise, folded, random, workspace
        )
        pooled = self.pooling(enriched, video.pooled_frames, random)
        return enriched, pooled, radius

    def enrich(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        noise: Tensor,
        folded: Any = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Enrich each text for each video, as :meth:`enrich_and_pool` does.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Enriched texts and radii of the
            candidates, ``(Bv, Bt, D)``, and the weights of the sentence and
            its candidates, beta of the paper, ``(Bv, Bt, 1 + S)``.
        """
        with torch.autocast(text.embeds.device.type, enabled=False):
            sentence = at_least_float32(text.embeds)
            radius = self.stochastic_text(
                sentence, at_least_float32(video.unit_frames)
            ).exp()  # (Bv, Bt, D)
        logits = self.graph(
            noise,
            radius,
            text.graph,
            video.graph,
            folded,
            video.frame_mask,
            random,
            workspace,
        )
        with torch.autocast(text.embeds.device.type, enabled=False):
            beta = logits.softmax(dim=-1)
            weights = beta[..., 1:]  # (Bv, Bt, S)
            noise = noise.to(weights.dtype)
            if noise.dim() == 2:
                mean = weights @ noise
            else:
                mean = (weights.unsqueeze(2) @ noise).squeeze(2)
            enriched = sentence + radius * mean
        return enriched, radius, beta

    def bytes_per_pair(self, training: bool) -> int:
        """Tell what one pair takes in float32.

        In evaluation the widest tensors of the graph; at widths below some
        100 it can be 1.4 times as much. In training what is
        kept for the backward pass: noise, what the graph keeps, and some 15
        vectors of radius, pooling and support text.

        Args:
            training (bool): Whether a backward pass follows.
        """
        candidates = self.candidate_noise.num_candidates
        numbers = self.graph.numbers_per_pair(
            self.num_frames, candidates, training
        )
        if training:
            numbers += (candidates + 15) * self.embed_dim
        else:  # the pooling comes behind the graph
            numbers = max(numbers, 6 * self.embed_dim + 8)
        return int(4 * numbers)

    def pair_noise(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw candidate noise for each pair, ``(Bv, Bt, S, D)``."""
        return self.candidate_noise.pairs(random, like)
