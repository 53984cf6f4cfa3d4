"""EagleNet: enriched texts from a text-frame graph, and energies."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import (
    PairExplanation,
    SeededHead,
    frame_cosines,
)
from eaglenet_mm.models.layers import (
    FineGrainedRelationships,
    FramePooling,
    KeyedRandom,
    PairRandom,
    PooledFramesState,
    StochasticText,
    Workspace,
    build_graph,
)
from eaglenet_mm.models.layers.fine_grained_relationships import EnrichedText
from eaglenet_mm.models.layers.stochastic_text import CandidateNoise
from eaglenet_mm.models.losses import KeyedNoise, NoiseSource
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import sum_with_grad

#: Bytes of a chunk in training that still pays, by type of device. Larger
#: ones leave the cache of a CPU; on a GPU they would leave no room in the
#: budget for chunks that are kept.
CHUNK_BYTES = {'cpu': 56 * 2**20, 'cuda': 128 * 2**20}


@dataclass
class EagleNetTextState(Features):
    """Everything the head needs of ``Bt`` sentences."""

    embeds: Tensor  # as they leave the encoder, (Bt, D)
    graph: Any  # text side of the first layer of the graph


@dataclass
class EagleNetVideoState(Features):
    """Everything the head needs of ``Bv`` videos."""

    unit_frames: Tensor  # frames of unit length, (Bv, F, D)
    pooled_frames: PooledFramesState  # keys and values of the pooling
    graph: Any  # video side of the first layer of the graph
    frame_mask: Tensor | None = None  # (Bv, F), if the head masks


@MODELS.register_module()
class EagleNetHead(SeededHead):
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
        support_weight (float): Factor of ``loss_match`` on the scores of the
            support text. Default: 0.8.
        loss_energy (dict, optional): Energy-aware matching, without the
            sizes. Default: None, none.
        energy_weight (float): Factor of its loss. Default: 1.
        energy_support_weight (float): Factor of the same loss on the support
            text. Default: 0.
        compile_score (bool): Let ``torch.compile`` fuse the scoring of
            chunks in evaluation. Scores then differ in their last bits. If
            it cannot, scoring goes on without it. Default: False.
        **kwargs: Of :class:`BasePairHead`: ``loss_match``, ``memory_budget``
            and ``init_cfg``.

    Raises:
        ValueError: If an option is unknown or out of range.

    Example:
        >>> head = EagleNetHead(embed_dim=32, num_frames=8).eval()
        >>> head(text, video).shape
        torch.Size([3, 4])
        >>> explanation = head.explain(text, video)
        >>> explanation.text_weights['beta'].shape  # (Bt, Bv, 1 + S)
        torch.Size([3, 4, 21])
    """

    noise_table: Tensor
    noise_axes: ClassVar[dict[int, str]] = {0: 'num_candidates'}

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
        support_weight: float = 0.8,
        loss_energy: dict | None = None,
        energy_weight: float = 1.0,
        energy_support_weight: float = 0.0,
        compile_score: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(embed_dim=embed_dim, num_frames=num_frames, **kwargs)
        if noise not in ('table', 'pair'):
            raise ValueError(
                f"noise must be 'table' or 'pair', but is {noise!r}."
            )
        if energy_support_weight and loss_energy is None:
            raise ValueError(
                f'energy_support_weight={energy_support_weight} weighs an '
                'energy loss, but there is none. Set loss_energy.'
            )
        self.use_frame_mask = self.needs_real_frames = use_frame_mask
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
        self.loss_energy = None
        if loss_energy is not None:
            self.loss_energy = MODELS.build(
                dict(loss_energy, embed_dim=embed_dim, num_frames=num_frames)
            )
        table = self.candidate_noise.table(embed_dim, noise_seed or 0)
        self.register_buffer('noise_table', table)
        self.compiled_score = (
            CompiledScore(self._score) if compile_score else None
        )
        self._graph_sizes = num_frames, num_candidates
        # the pooling comes behind the graph; kept are noise and some 15
        # vectors of radius, pooling and support text beside the graph's
        evaluation, training = (
            self.graph.numbers_per_pair(*self._graph_sizes, kept)
            for kept in (False, True)
        )
        self.numbers_per_pair = (
            int(max(evaluation, 6 * embed_dim + 8)),
            int(training + (num_candidates + 15) * embed_dim),
        )

    @property
    def relationships(self) -> FineGrainedRelationships:
        """Fine-grained relationship learning with the layers of the head."""
        return FineGrainedRelationships(self.stochastic_text, self.graph)

    # ---------------------------------------------------------------- sides

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
        frames = nodes = video.frames
        mask = video.frame_mask if self.use_frame_mask else None
        if self.frame_embedding is not None:
            nodes = frames + self.frame_embedding
        return EagleNetVideoState(
            unit_frames=self.stochastic_text.unit_frames(frames, mask),
            pooled_frames=self.pooling.prepare_frames(frames, mask),
            graph=self.graph.prepare_frames(nodes, mask),
            frame_mask=mask,
        )

    # --------------------------------------------------------------- scores

    def score(
        self, text_state: EagleNetTextState, video_state: EagleNetVideoState
    ) -> Tensor:
        """Score every text against every video.

        Sections 3.1 and 3.2 of the paper, with evaluation noise and without
        dropout, whatever mode the module is in. With ``noise='table'`` the
        score of a pair depends on that pair alone. Gives cosines,
        ``(Bt, Bv)``.
        """
        return self._score(text_state, video_state, None, None)

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Score as :meth:`score`, with weights and memory of all chunks."""
        folded = self.graph.fold(*self._graph_sizes)
        if self.compiled_score is None:
            return functools.partial(
                self._score, folded=folded, workspace=Workspace()
            )
        compiled = self.compiled_score
        return lambda text, video: compiled(text, video, folded, None)

    def _score(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        folded: Any,
        workspace: Workspace | None,
    ) -> Tensor:
        shape = len(text.embeds), len(video.unit_frames)
        if 0 in shape:
            return text.embeds.new_zeros(shape)
        noise = self._evaluation_noise(text, video)
        if self.noise == 'pair':
            self.noise_draws += 1  # fresh at each call: depends on the chunks
        enriched, pooled, _ = self.enrich_and_pool(
            text, video, noise, folded, workspace=workspace
        )
        return F.cosine_similarity(enriched, pooled, dim=-1, eps=1e-12).T

    def enrich(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        noise: Tensor,
        folded: Any = None,
        random: PairRandom | None = None,
        workspace: Workspace | None = None,
    ) -> EnrichedText:
        """Enrich each text for each video, by the layers of this head.

        Arguments and result are those of :class:`FineGrainedRelationships`.
        """
        return self.relationships(
            text.embeds,
            video.unit_frames,
            text.graph,
            video.graph,
            noise,
            frame_mask=video.frame_mask,
            folded=folded,
            random=random,
            workspace=workspace,
        )

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

        Arguments as those of :meth:`enrich`.

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

    def _evaluation_noise(
        self, text: EagleNetTextState, video: EagleNetVideoState
    ) -> Tensor:
        """Noise of the table, or that of the pairs that is next."""
        if self.noise == 'table':
            return self.noise_table
        random = PairRandom(
            KeyedRandom(self.noise_seed or 0, self.noise_draws),
            range(len(text)),
            range(len(video)),
        )
        return self.pair_noise(random, at_least_float32(text.embeds))

    def pair_noise(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw candidate noise for each pair, ``(Bv, Bt, S, D)``."""
        return self.candidate_noise.pairs(random, like)

    # ----------------------------------------------------------------- loss

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses of the joint batch, section 3.4 of the paper.

        ::

            L = match(scores) + support_weight * match(support scores)
                + energy_weight * energy(video, text)
                + energy_support_weight * energy(video, support)

        Each process scores the rows of its own texts, and runs its own share
        of the energies and of the sampler; see the base class.

        Returns:
            dict[str, Tensor]: ``loss_match``, and as far as they are in use
            ``loss_support``, ``loss_energy`` and ``loss_energy_support``;
            ``pos_score`` and ``neg_score`` to watch.
        """
        batch = self.open_batch(text, video)
        share, random = batch.share, batch.random
        needs_support = bool(self.support_weight or self.energy_support_weight)
        device = text.embeds.device.type
        grid = replace(
            batch.grid,
            chunk_bytes=CHUNK_BYTES.get(device, CHUNK_BYTES['cuda']),
            # the support text of a video needs it pooled for all own texts
            whole_columns=True,
            random=random,  # candidates need noise in any mode
        )
        folded, workspace = self.graph.fold(*self._graph_sizes), Workspace()

        def score(
            texts: EagleNetTextState,
            videos: EagleNetVideoState,
            drawn: Any,
        ) -> tuple[Tensor, Tensor, Tensor]:
            """Score all own texts and their support against some videos."""
            like = at_least_float32(texts.embeds)
            enriched, pooled, radius = self.enrich_and_pool(
                texts,
                videos,
                self.pair_noise(drawn, like),
                folded,
                drawn if self.training else None,
                workspace,
            )
            with torch.autocast(device, enabled=False):
                pooled = F.normalize(pooled, dim=-1)
                scores = (F.normalize(enriched, dim=-1) * pooled).sum(dim=-1)
                if not needs_support:
                    return scores, scores[:0], enriched[:0, 0]
                total = sum_with_grad(pooled.sum(dim=1))  # of all processes
                supports = self.support_text(
                    texts.embeds, total / len(grid.columns), radius
                )
                own, columns = share.rows, drawn.columns
                matching = [i for i, row in enumerate(own) if row in columns]
                places = [own[i] - columns.start for i in matching]
                return (
                    scores,
                    (supports * pooled).sum(dim=-1),
                    supports[places, matching],
                )

        blocks = grid.blocks(score, batch.text, batch.all_videos)
        scores, support_scores, supports = (
            torch.cat(parts)
            for parts in zip(*(part for _, _, part in blocks), strict=True)
        )  # (B, b), (B, b), (b, D)
        losses = self.match_losses(scores.T, share)
        if self.support_weight:
            losses['loss_support'] = self.support_weight * self.match(
                support_scores.T, share
            )
        if self.loss_energy is None:
            return losses
        mask = video.frame_mask if self.use_frame_mask else None
        for name, weight, purpose, texts in (
            ('loss_energy', self.energy_weight, 'energy', text.embeds),
            (
                'loss_energy_support',
                self.energy_support_weight,
                'support energy',
                supports,
            ),
        ):
            if weight:
                noise = self.energy_noise(random, purpose)
                losses[name] = weight * self.loss_energy(
                    video.frames, texts, noise, mask, share
                )
        return losses

    def support_text(
        self, text: Tensor, centre: Tensor, radius: Tensor
    ) -> Tensor:
        """Push sentences towards the videos, by as much as the radius allows.

        Of sentences ``(Bt, D)``; the mean over all texts of each video's
        pooled vectors of unit length, ``(Bv, D)``; and the radius of the
        candidates. Gives unit vectors, ``(Bv, Bt, D)``.
        """
        direction = F.normalize(centre.unsqueeze(1) - text, dim=-1)
        return F.normalize(direction * radius + text, dim=-1)

    def energy_noise(self, random: KeyedRandom, purpose: str) -> NoiseSource:
        """Give the energy loss its random numbers."""
        return KeyedNoise(random, purpose)

    # ------------------------------------------------- explanations and noise

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Tell what every score came from; see the base class.

        Returns:
            PairExplanation: Of frames the ``'attention'`` of the enriched
            text and the ``'cosine'`` of the plain one; of texts
            ``'beta'``, the weights of the sentence (first) and its
            candidates, shape ``(Bt, Bv, 1 + S)``; the enriched text and the
            pooled video. With ``noise='pair'`` the noise is not that of the
            scores before.
        """
        texts, videos = self.prepare_text(text), self.prepare_video(video)
        noise = self._evaluation_noise(texts, videos)
        enriched, _, beta = self.enrich(texts, videos, noise)
        frames = videos.pooled_frames
        attention = self.pooling.attention(enriched, frames)
        return PairExplanation(
            frame_weights={
                'attention': attention.transpose(0, 1),
                'cosine': frame_cosines(text, video),
            },
            text_weights={'beta': beta.transpose(0, 1)},
            enriched=enriched.transpose(0, 1),
            pooled=self.pooling(enriched, frames).transpose(0, 1),
        )

    def reseed(self, seed: int) -> None:
        """Draw the evaluation noise anew."""
        self.noise_seed, self.noise_draws = seed, 0
        table = self.candidate_noise.table(self.noise_table.shape[1], seed)
        self.noise_table.copy_(table)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep own noise if it was asked for."""
        if self.noise_seed is not None:
            state_dict[prefix + 'noise_table'] = self.noise_table
        super()._load_from_state_dict(state_dict, prefix, *args)


class CompiledScore:
    """A scoring function under ``torch.compile``, or as it is.

    It is compiled at the first call. What the compiler raises (no C++
    compiler, no Triton, a Python it does not support, an operation it does
    not know) is logged once, and from then on the function runs as it is. So
    does a call that needs a gradient: the backward pass of the graph is
    written out, and gains nothing.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        backend: str | Callable = 'inductor',
    ) -> None:
        self.function = function
        self.backend = backend
        self.compiled: Callable[..., Tensor] | None = None
        self.has_failed = False

    def __deepcopy__(self, memo: dict) -> CompiledScore:
        """Copy without what is compiled, which is bound to the first head."""
        copied = CompiledScore(
            copy.deepcopy(self.function, memo), self.backend
        )
        copied.has_failed = self.has_failed
        return copied

    def __call__(self, *args: Any) -> Tensor:
        """Score, compiled if that is possible."""
        if self.has_failed or torch.is_grad_enabled():
            return self.function(*args)
        try:
            if self.compiled is None:
                self.compiled = torch.compile(
                    self.function, dynamic=True, backend=self.backend
                )
            return self.compiled(*args)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - of many kinds
            # what is wrong with the arguments is raised again below
            scores = self.function(*args)
            self.compiled = None
            self.has_failed = True
            print_log(
                'torch.compile failed, scoring goes on without it: '
                f'{type(error).__name__}: {str(error).splitlines()[0]}',
                logger='current',
                level=logging.WARNING,
            )
            return scores
