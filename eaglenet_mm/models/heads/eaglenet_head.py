"""EagleNet: enriched texts from a text-frame graph, and energies."""

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
    CandidateNoise,
    EagleNetTextState,
    EagleNetVideoState,
    check_frames,
)
from eaglenet_mm.models.layers import (
    FramePooling,
    KeyedRandom,
    PairRandom,
    StochasticText,
    Workspace,
    build_graph,
)
from eaglenet_mm.models.layers.graph_attention import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures


@MODELS.register_module()
class EagleNetHead(EagleNetObjective):
    """Scores pairs by enriched texts and text-conditioned videos.

    Implements `EagleNet <https://arxiv.org/abs/2603.25267>`_: stochastic
    candidates around each sentence, their weights from a graph over the
    candidates and the frames (fine-grained relationship learning), pooling of
    the frames conditioned on the enriched text, and the cosine of the two.
    Training adds the support text of `T-MASS
    <https://arxiv.org/abs/2403.17998>`_ and energy-aware matching.

    Differs from the release: the algebra is factorised (same numbers);
    evaluation noise comes from one table ``(S, D)``, kept in the checkpoint
    and shared by all pairs, unless ``noise='pair'`` (then it is fresh at each
    call, as in the release); training noise and
    dropout depend on seed, step and place in the joint batch, not on the
    process; and padded frames can be masked.

    Args:
        embed_dim (int): Width ``D`` of the features.
        num_frames (int): Frames ``F`` of every video, padding included.
        num_candidates (int): Candidates ``S`` a pair. Default: 20.
        prior (str): Noise of the candidates, ``'uniform01'`` or ``'normal'``.
            Default: ``'uniform01'``.
        prior_std (float): Standard deviation of ``'normal'``. Default: 1.
        graph (dict, optional): Options of the graph, and ``type='rgat'``
            (default) or ``'gat'``.
        pooling (dict, optional): Options of the pooling.
        frame_embedding (bool): Add a learnt vector to each frame node.
            Default: False.
        use_frame_mask (bool): Leave padded frames out of everything. The
            release does not. Default: False.
        noise (str): Evaluation noise, ``'table'`` or ``'pair'``.
            Default: ``'table'``.
        noise_seed (int, optional): Seed of the evaluation noise. Default:
            None, the noise of the checkpoint, which is that of seed 0 unless
            it was trained with another.
        loss_match (dict, optional): Loss on the scores. Default: None.
        support_weight (float): Factor of the same loss on the scores of the
            support text. Default: 0.8.
        loss_energy (dict, optional): Energy-aware matching, without the
            sizes. Default: None, none.
        energy_weight (float): Factor of its loss. Default: 1.
        energy_support_weight (float): Factor of the same loss on the support
            text. Default: 0.
        memory_budget (int): See the base class.
        compile_score (bool): Let ``torch.compile`` fuse the scoring of
            chunks in evaluation. Scores then differ in their last bits. If
            it cannot, scoring goes on without it. Default: False.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        num_candidates: int = 20,
        prior: str = 'uniform01',
        prior_std: float = 1.0,
        graph: dict | None = None,
        pooling: dict | None = None,
        frame_embedding: bool = False,
        use_frame_mask: bool = False,
        noise: str = 'table',
        noise_seed: int | None = None,
        loss_match: dict | None = None,
        support_weight: float = 0.8,
        loss_energy: dict | None = None,
        energy_weight: float = 1.0,
        energy_support_weight: float = 0.0,
        memory_budget: int = 512 * 2**20,
        compile_score: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_match, memory_budget, init_cfg)
        if noise not in ('table', 'pair'):
            raise ValueError(
                f"noise must be 'table' or 'pair', but is {noise!r}."
            )
        if energy_support_weight and loss_energy is None:
            raise ValueError(
                f'energy_support_weight={energy_support_weight} weighs an '
                'energy loss, but there is none. Set loss_energy.'
            )
        self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.use_frame_mask = use_frame_mask
        self.noise = noise
        self.noise_seed = noise_seed
        self.noise_draws = 0
        self.support_weight = support_weight
        self.energy_weight = energy_weight
        self.energy_support_weight = energy_support_weight
        self.candidate_noise = CandidateNoise(prior, prior_std, num_candidates)
        self.stochastic_text = StochasticText(embed_dim, num_frames)
        self.graph = build_graph(embed_dim, **(graph or {}))
        self.pooling = FramePooling(embed_dim, **(pooling or {}))
        self.frame_embedding = (
            nn.Parameter(torch.randn(num_frames, embed_dim))
            if frame_embedding
            else None
        )
        self.loss_energy = (
            None
            if loss_energy is None
            else MODELS.build(
                dict(loss_energy, embed_dim=embed_dim, num_frames=num_frames)
            )
        )
        self.register_buffer(
            'noise_table',
            self.candidate_noise.table(embed_dim, noise_seed or 0),
        )
        # seed of the run and number of the next training step
        self.register_buffer(
            'random_key', torch.tensor([torch.initial_seed() % 2**62, 0])
        )
        self.compiled_score = (
            CompiledScore(self._score) if compile_score else None
        )
        self.noise_table: Tensor
        self.random_key: Tensor

    def reseed(self, seed: int) -> None:
        """Draw the evaluation noise anew.

        Args:
            seed (int): Seed of the noise.
        """
        self.noise_seed, self.noise_draws = seed, 0
        table = self.candidate_noise.table(self.embed_dim, seed)
        self.noise_table.copy_(table)

    def prepare_text(self, text: TextFeatures) -> EagleNetTextState:
        """Compute the text side of the graph, once a sentence."""
        if text.embeds.shape[-1] != self.embed_dim:
            raise ValueError(
                f'The head was built for embed_dim={self.embed_dim}, but got '
                f'text features of shape {tuple(text.embeds.shape)}.'
            )
        return EagleNetTextState(
            text.embeds, self.graph.prepare_text(text.embeds)
        )

    def prepare_video(self, video: VideoFeatures) -> EagleNetVideoState:
        """Compute the video side of graph and pooling, once a video.

        Raises:
            ValueError: If the frames do not fit the head, or a video has no
                real frame while masks are in use.
        """
        frames = video.frames
        mask = video.frame_mask if self.use_frame_mask else None
        check_frames(frames, mask, self.num_frames, self.embed_dim)
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
        if self.noise == 'table':
            noise = self.noise_table
        else:
            # fresh noise at each call, so it depends on the chunks
            random = PairRandom(
                KeyedRandom(self.noise_seed or 0, self.noise_draws),
                range(len(text_state)),
                range(len(video_state)),
            )
            self.noise_draws += 1
            noise = self.pair_noise(
                random, at_least_float32(text_state.embeds)
            )
        enriched, pooled, _ = self.enrich_and_pool(
            text_state, video_state, noise, folded, workspace=workspace
        )
        return F.cosine_similarity(enriched, pooled, dim=-1, eps=1e-12).T

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
            weights = logits.softmax(dim=-1)[..., 1:]  # (Bv, Bt, S)
            noise = noise.to(weights.dtype)
            if noise.dim() == 2:
                mean = weights @ noise
            else:
                mean = (weights.unsqueeze(2) @ noise).squeeze(2)
            enriched = sentence + radius * mean
        pooled = self.pooling(enriched, video.pooled_frames, random)
        return enriched, pooled, radius

    def bytes_per_pair(self, training: bool) -> int:
        """Tell what one pair takes in float32.

        In evaluation the widest tensors of the graph. In training what is
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
        return int(4 * numbers)

    def score_with_grad(self, text_state: Any, video_state: Any) -> Tensor:
        """Score prepared sides for training; see the base class.

        Raises:
            ValueError: With ``noise='pair'``, which is drawn at each call, so
                that chunks computed again would not be what they were. The
                loss draws noise of its own.
        """
        if self.noise == 'pair':
            raise ValueError(
                "score_with_grad needs noise='table', since noise='pair' is "
                'drawn anew when chunks are computed again. Use loss().'
            )
        return super().score_with_grad(text_state, video_state)

    def pair_noise(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw candidate noise for each pair, ``(Bv, Bt, S, D)``."""
        return self.candidate_noise.pairs(random, like)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep own noise if it was asked for or a checkpoint has none."""
        if self.noise_seed is not None:
            state_dict[prefix + 'noise_table'] = self.noise_table
        for name in ('noise_table', 'random_key'):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)
