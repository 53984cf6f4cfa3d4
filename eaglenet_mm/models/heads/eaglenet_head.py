"""EagleNet: texts enriched by a text-frame graph, and energy matching."""

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

#: Maximum bytes per training chunk, by device type. Larger chunks do not fit
#: a CPU's cache; on a GPU they leave no budget for chunks to keep.
CHUNK_BYTES = {'cpu': 56 * 2**20, 'cuda': 128 * 2**20}


@dataclass
class EagleNetTextState(Features):
    """State of ``Bt`` texts."""

    embeds: Tensor  # encoder output, not normalised, (Bt, D)
    graph: Any  # text inputs of the first graph layer


@dataclass
class EagleNetVideoState(Features):
    """State of ``Bv`` videos."""

    unit_frames: Tensor  # L2-normalised frames, (Bv, F, D)
    pooled_frames: PooledFramesState  # keys and values of the pooling
    graph: Any  # frame inputs of the first graph layer
    frame_mask: Tensor | None = None  # (Bv, F), if use_frame_mask


@MODELS.register_module()
class EagleNetHead(SeededHead):
    """Cosine similarity of the enriched text and the text-conditioned video.

    Implements `EagleNet <https://arxiv.org/abs/2603.25267>`_: stochastic text
    candidates around each sentence, weighted by a graph over candidates and
    frames (fine-grained relationship learning); frame pooling conditioned on
    the enriched text; and the cosine similarity of the two. Training adds the
    support text of `T-MASS <https://arxiv.org/abs/2403.17998>`_ and
    energy-aware matching.

    Differs from the release: the algebra is factorised (same numbers);
    evaluation noise is a table ``(S, D)``, stored in the checkpoint and
    shared by all pairs, unless ``noise='pair'`` redraws it at each call as
    the release does; training noise and dropout depend on seed, step and
    position in the joint batch, not on the process; padded frames can be
    masked.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video, including padding.
        num_candidates (int): Text candidates ``S`` per pair. Default: 20.
        prior (str): Noise of the candidates, ``'uniform01'`` or ``'normal'``.
            Default: ``'uniform01'``.
        prior_std (float): Standard deviation of ``'normal'``. Default: 1.
        graph (dict, optional): ``type``, ``'rgat'`` (default) or ``'gat'``,
            and options of :class:`RelationalGraph` or :class:`PlainGraph`.
        pooling (dict, optional): Options of :class:`FramePooling`.
        frame_embedding (bool): Add a learnable embedding to each frame node.
            Default: False.
        use_frame_mask (bool): Mask padded frames everywhere; the release does
            not. Default: False.
        noise (str): Evaluation noise, ``'table'`` or ``'pair'``.
            Default: ``'table'``.
        noise_seed (int, optional): Seed of the evaluation noise. Default:
            None, the noise of the checkpoint, or seed 0 without one.
        support_weight (float): Weight of ``loss_match`` on the scores of the
            support text. Default: 0.8.
        loss_energy (dict, optional): Config of :class:`EnergyMatchingLoss`
            without ``embed_dim`` and ``num_frames``. Default: None, no energy
            loss.
        energy_weight (float): Weight of the energy loss. Default: 1.
        energy_support_weight (float): Weight of the energy loss of the
            support text. Default: 0.
        compile_score (bool): Run ``torch.compile`` on the scoring of chunks
            in evaluation, which changes the last bits of scores. Falls back
            to eager mode if compilation fails. Default: False.
        **kwargs: Options of :class:`BasePairHead`.

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
                f'energy_support_weight={energy_support_weight} has no '
                'effect without an energy loss. Set loss_energy.'
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
        # evaluation frees the graph before the pooling; training also keeps
        # the noise and some 15 vectors of radius, pooling and support text
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
        """Fine-grained relationship learning with the layers of this head."""
        return FineGrainedRelationships(self.stochastic_text, self.graph)

    # --------------------------------------------------------------- states

    def prepare_text(self, text: TextFeatures) -> EagleNetTextState:
        """Precompute the graph inputs of each text."""
        self.check_text(text)
        return EagleNetTextState(
            text.embeds, self.graph.prepare_text(text.embeds)
        )

    def prepare_video(self, video: VideoFeatures) -> EagleNetVideoState:
        """Precompute the graph and pooling inputs of each video.

        Raises:
            ValueError: If the frames do not fit the head, or a video has no
                real frame and ``use_frame_mask`` is set.
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
        """Compute cosine similarities, shape ``(Bt, Bv)``.

        Sections 3.1 and 3.2 of the paper, with evaluation noise and without
        dropout, in training mode too.
        """
        return self._score(text_state, video_state, None, None)

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Return :meth:`score` with folded weights and shared buffers."""
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
            self.noise_draws += 1  # so scores depend on the chunks
        enriched, pooled, _ = self.enrich_and_pool(
            text, video, noise, folded=folded, workspace=workspace
        )
        return F.cosine_similarity(enriched, pooled, dim=-1, eps=1e-12).T

    def enrich(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        noise: Tensor,
        **options: Any,
    ) -> EnrichedText:
        """Enrich each text for each video.

        See :class:`FineGrainedRelationships` for options and result.
        """
        return self.relationships(
            text.embeds,
            video.unit_frames,
            text.graph,
            video.graph,
            noise,
            frame_mask=video.frame_mask,
            **options,
        )

    def enrich_and_pool(
        self,
        text: EagleNetTextState,
        video: EagleNetVideoState,
        noise: Tensor,
        random: PairRandom | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Enrich each text for each video and pool the video for it.

        Same arguments as :meth:`enrich`.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Enriched texts, pooled videos and
            candidate radii, each of shape ``(Bv, Bt, D)``.
        """
        enriched, radius, _ = self.enrich(
            text, video, noise, random=random, **options
        )
        pooled = self.pooling(enriched, video.pooled_frames, random)
        return enriched, pooled, radius

    def _evaluation_noise(
        self, text: EagleNetTextState, video: EagleNetVideoState
    ) -> Tensor:
        """The noise table, or new noise for each pair."""
        if self.noise == 'table':
            return self.noise_table
        random = PairRandom(
            KeyedRandom(self.noise_seed or 0, self.noise_draws),
            range(len(text)),
            range(len(video)),
        )
        return self.pair_noise(random, at_least_float32(text.embeds))

    def pair_noise(self, random: PairRandom, like: Tensor) -> Tensor:
        """Draw candidate noise of each pair, ``(Bv, Bt, S, D)``."""
        return self.candidate_noise.pairs(random, like)

    # ----------------------------------------------------------------- loss

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses of section 3.4 of the paper.

        ::

            L = match(scores) + support_weight * match(support scores)
                + energy_weight * energy(video, text)
                + energy_support_weight * energy(video, support)

        Each process scores its own texts and computes its own share of the
        energies and sampled pairs; see the base class.

        Returns:
            dict[str, Tensor]: ``loss_match``; ``loss_support``,
            ``loss_energy`` and ``loss_energy_support`` if their weight is not
            0; and the statistics of :meth:`match_losses`.
        """
        batch = self.open_batch(text, video)
        share, random = batch.share, batch.random
        needs_support = bool(self.support_weight or self.energy_support_weight)
        device = text.embeds.device.type
        grid = replace(
            batch.grid,
            chunk_bytes=CHUNK_BYTES.get(device, CHUNK_BYTES['cuda']),
            # a support text is built from the video pooled for all texts
            whole_columns=True,
            random=random,  # candidates need noise in evaluation mode too
        )
        folded, workspace = self.graph.fold(*self._graph_sizes), Workspace()

        def score(
            texts: EagleNetTextState,
            videos: EagleNetVideoState,
            drawn: Any,
        ) -> tuple[Tensor, Tensor, Tensor]:
            """Score own texts and their support texts for some videos."""
            like = at_least_float32(texts.embeds)
            enriched, pooled, radius = self.enrich_and_pool(
                texts,
                videos,
                self.pair_noise(drawn, like),
                drawn if self.training else None,
                folded=folded,
                workspace=workspace,
            )
            with torch.autocast(device, enabled=False):
                pooled = F.normalize(pooled, dim=-1)
                scores = (F.normalize(enriched, dim=-1) * pooled).sum(dim=-1)
                if not needs_support:
                    return scores, scores[:0], enriched[:0, 0]
                total = sum_with_grad(pooled.sum(dim=1))  # all processes
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
        """Move sentences towards the videos, scaled by the radius.

        Args:
            text (Tensor): Sentences, shape ``(Bt, D)``.
            centre (Tensor): Mean over all texts of the L2-normalised pooled
                video, shape ``(Bv, D)``.
            radius (Tensor): Radius of the candidates, ``(Bv, Bt, D)``.

        Returns:
            Tensor: L2-normalised support texts, shape ``(Bv, Bt, D)``.
        """
        direction = F.normalize(centre.unsqueeze(1) - text, dim=-1)
        return F.normalize(direction * radius + text, dim=-1)

    def energy_noise(self, random: KeyedRandom, purpose: str) -> NoiseSource:
        """Return the random numbers of an energy loss."""
        return KeyedNoise(random, purpose)

    # ------------------------------------------------- explanations and noise

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Return attention, candidate weights and embeddings of each pair.

        Returns:
            PairExplanation: Frame weights ``'attention'``, of the enriched
            text, and ``'cosine'``, of the sentence; text weights ``'beta'``
            of the sentence and its candidates, ``(Bt, Bv, 1 + S)``; enriched
            texts and pooled videos. With ``noise='pair'`` the noise differs
            from that of earlier scores.
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
        """Redraw the evaluation noise."""
        self.noise_seed, self.noise_draws = seed, 0
        table = self.candidate_noise.table(self.noise_table.shape[1], seed)
        self.noise_table.copy_(table)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep the current noise if ``noise_seed`` is set."""
        if self.noise_seed is not None:
            state_dict[prefix + 'noise_table'] = self.noise_table
        super()._load_from_state_dict(state_dict, prefix, *args)


class CompiledScore:
    """Scoring function compiled on its first call, with an eager fallback.

    If compilation fails (no C++ compiler, no Triton, an unsupported Python
    version or operation), the error is logged once and the function runs
    eagerly from then on. Calls that need a gradient always run eagerly: the
    graph has a hand-written backward pass.
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
        """Copy without compiled code, which is bound to the original head."""
        copied = CompiledScore(
            copy.deepcopy(self.function, memo), self.backend
        )
        copied.has_failed = self.has_failed
        return copied

    def __call__(self, *args: Any) -> Tensor:
        """Call the function, compiled if possible."""
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
        except Exception as error:  # noqa: BLE001 - compilers raise anything
            # invalid arguments raise again here
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
