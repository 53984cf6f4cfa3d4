"""EagleNet: enriched texts from a text-frame graph, and energies."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import (
    PairExplanation,
    frame_cosines,
)
from eaglenet_mm.models.heads.compiled import CompiledScore
from eaglenet_mm.models.heads.eaglenet_scoring import EagleNetScoring
from eaglenet_mm.models.layers import FramePooling, StochasticText, build_graph
from eaglenet_mm.models.layers.stochastic_text import CandidateNoise
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures


@MODELS.register_module()
class EagleNetHead(EagleNetScoring):
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
        self.compiled_score = (
            CompiledScore(self._score) if compile_score else None
        )
        self.noise_table: Tensor

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Tell what every score came from; see the base class.

        Args:
            text (TextFeatures): Features of ``Bt`` texts.
            video (VideoFeatures): Features of ``Bv`` videos.

        Returns:
            PairExplanation: Of frames the ``'attention'`` of the enriched
            text and the ``'cosine'`` of the plain one; of texts
            ``'beta'``, the weights of the sentence (first) and its
            candidates, shape ``(Bt, Bv, 1 + S)``; the enriched text and the
            pooled video. With ``noise='pair'`` the noise is not that of the
            scores before.
        """
        texts, videos = self.prepare_text(text), self.prepare_video(video)
        noise = self.evaluation_noise(texts, videos)
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
        """Draw the evaluation noise anew.

        Args:
            seed (int): Seed of the noise.
        """
        self.noise_seed, self.noise_draws = seed, 0
        table = self.candidate_noise.table(self.embed_dim, seed)
        self.noise_table.copy_(table)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep own noise if it was asked for."""
        if self.noise_seed is not None:
            state_dict[prefix + 'noise_table'] = self.noise_table
        super()._load_from_state_dict(state_dict, prefix, *args)
