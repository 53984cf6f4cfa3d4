"""TV-ProxyNet: each text gets a proxy of its own for each video."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.heads.batch_checks import check_batch
from eaglenet_mm.models.heads.head_checks import (
    check_text_sizes,
    check_video_sizes,
)
from eaglenet_mm.models.heads.mean_pooling_head import UnitVectors
from eaglenet_mm.models.heads.seeded_head import PairDropoutHead
from eaglenet_mm.models.heads.shortlist import (
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.layers import PairRandom
from eaglenet_mm.models.layers.keyed_random import check_dropout
from eaglenet_mm.models.layers.text_director import (
    DirectorLayer,
    ProxyVideoState,
)
from eaglenet_mm.models.losses import Share
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features


@MODELS.register_module()
class TextProxyHead(PairDropoutHead):
    """Cosine of text and video, plus that of the text's proxy for the video.

    Implements the head of TV-ProxyNet (AAAI 2025): a decoder over the tokens
    of a video (the director) says in which direction the text moves, the
    cosines of text and tokens (the dash) how far; the proxy is compared with
    the video as the text is. Scores are ``base + gamma * proxy``.

    Differs from the release: it stands on the encoders we have, where the
    video is the mean of its unit frames and the frames are the tokens (the
    release stands on CLIP-ViP, which has video tokens of its own); ``gamma``
    is a fixed number that the config states (the release reports the best of
    ten on the test set); a linear dash is over the tokens that the director
    sees; gradients of several processes are those of the joint batch (there,
    of other samples); masked frames are left out.

    Args:
        embed_dim (int): Width ``D``.
        num_frames (int): Tokens ``M`` of every video, padding included.
        gamma (float): Weight of the proxy's cosine in the score. Default: 0.5.
        num_tokens (int, optional): First tokens that the director sees.
            Default: None, all. Videos that have padding alone there are
            refused.
        dash (str): ``'theta'``, one length a pair, or ``'linear'``, one a
            channel. Default: ``'theta'``.
        delta (float): Share of the text in the direction. Default: 1.
        eta (float): Share of the director, subtracted. Default: 1.
        dropout (float): Rate within the director. Default: 0.1.
        use_frame_mask (bool): Leave padded frames out. Default: True.
        loss_match (dict, optional): Loss on the cosines; as published
            ``InfoNCELoss(loss_weight=2, max_scale=200)``. Default: None.
        proxy_weight (float): Factor of the loss of the proxies. Default: 0.5.
        positive_weight (float): Factor of the loss of the matching proxies
            against all videos. Default: 0.25.
        memory_budget (int): See the base class.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        gamma: float = 0.5,
        num_tokens: int | None = None,
        dash: str = 'theta',
        delta: float = 1.0,
        eta: float = 1.0,
        dropout: float = 0.1,
        use_frame_mask: bool = True,
        loss_match: dict | None = None,
        proxy_weight: float = 0.5,
        positive_weight: float = 0.25,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_match, memory_budget, init_cfg)
        num_tokens = num_frames if num_tokens is None else num_tokens
        if (
            dash not in ('theta', 'linear')
            or not 1 <= num_tokens <= num_frames
        ):
            raise ValueError(
                "dash must be 'theta' or 'linear' and num_tokens from 1 to "
                f'num_frames={num_frames}, but got {dash!r} and {num_tokens}.'
            )
        check_dropout(dropout)
        self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.gamma = gamma
        self.num_tokens = num_tokens
        self.delta, self.eta = delta, eta
        self.use_frame_mask = use_frame_mask
        self.proxy_weight = proxy_weight
        self.positive_weight = positive_weight
        self.layer1 = DirectorLayer(embed_dim, dropout)
        self.layer2 = copy.deepcopy(self.layer1)  # as published
        self.norm = nn.LayerNorm(embed_dim)
        self.theta = self.dash = None
        if dash == 'theta':
            self.theta = nn.Parameter(torch.rand(1))
        else:
            self.dash = nn.Linear(num_tokens, embed_dim)

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts of another width."""
        check_text_sizes(self, text, embed_dim=self.embed_dim)

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another size, or without a real frame to see."""
        check_video_sizes(
            self,
            video,
            embed_dim=self.embed_dim,
            num_frames=self.num_frames,
            needs_real_frames=self.use_frame_mask,
            num_seen=self.num_tokens,
        )

    def prepare_text(self, text: TextFeatures) -> UnitVectors:
        """Bring sentences to unit length, shape ``(Bt, D)``."""
        self.check_text(text)
        return UnitVectors(unit_sentences(text))

    def prepare_video(self, video: VideoFeatures) -> ProxyVideoState:
        """Compute the video's vector, and what the director needs of it."""
        self.check_video(video)
        mask = video.frame_mask
        if not self.use_frame_mask:
            mask = torch.ones_like(mask)
        embeds = mean_of_unit_frames(replace(video, frame_mask=mask))
        return self.prepare_tokens(video.frames, mask, embeds)

    def prepare_tokens(
        self, tokens: Tensor, token_mask: Tensor, embeds: Tensor
    ) -> ProxyVideoState:
        """Prepare videos whose encoder gives tokens and a vector.

        Args:
            tokens (Tensor): Not normalised, shape ``(Bv, M, D)``.
            token_mask (Tensor): True for real tokens, one at least among the
                first ``num_tokens``, shape ``(Bv, M)``.
            embeds (Tensor): Of unit length, shape ``(Bv, D)``.

        Returns:
            ProxyVideoState: See there.
        """
        unit = F.normalize(at_least_float32(tokens), dim=-1)
        seen = slice(0, self.num_tokens)
        visible = token_mask[:, seen]
        return ProxyVideoState(
            embeds=embeds,
            unit_tokens=unit * token_mask.unsqueeze(-1),
            token_count=token_mask.sum(dim=1).clamp(min=1),
            layer1=self.layer1.prepare_tokens(tokens[:, seen], visible),
            layer2=self.layer2.prepare_tokens(tokens[:, seen], visible),
        )

    def proxies(
        self,
        text_state: UnitVectors,
        video_state: ProxyVideoState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Make the proxy of each text for each video, ``(Bv, Bt, D)``."""
        return self._proxies(
            text_state.embeds.unsqueeze(0), video_state, random
        )

    def _proxies(
        self, text: Tensor, video_state: ProxyVideoState, random: Any
    ) -> Tensor:
        """Make proxies of texts ``(1, Bt, D)``, or own ones ``(Bv, 1, D)``."""
        x = self.layer1(text, video_state.layer1, random, 'one')
        x = self.layer2(x, video_state.layer2, random, 'two')
        directed = float32_layer_norm(self.norm, x)
        with torch.autocast(text.device.type, enabled=False):
            direction = F.normalize(
                self.delta * text - self.eta * directed, dim=-1
            )
            return text + self._dash(text, video_state) * direction

    def _dash(self, text: Tensor, video: ProxyVideoState) -> Tensor:
        """Length of the move, ``(Bv, Bt, 1)`` or ``(Bv, Bt, D)``."""
        text = F.normalize(text, dim=-1)  # it is, but for its gradient
        if self.theta is not None:
            mean = video.unit_tokens.sum(dim=1) / video.token_count[:, None]
            cosines = _products(mean.unsqueeze(1), text)  # (Bv, Bt, 1)
            return (self.theta * cosines).exp()
        tokens = video.unit_tokens[:, : self.num_tokens]
        cosines = _products(tokens, text)  # (Bv, Bt, M)
        layer: Any = self.dash
        return F.linear(
            cosines, layer.weight.to(cosines), layer.bias.to(cosines)
        ).exp()

    def score_pairs(
        self,
        text_state: UnitVectors,
        video_state: ProxyVideoState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Compute ``base + gamma * proxy``; see the base class."""
        base, proxy = self.base_and_proxy(
            text_state, video_state, random
        ).unbind(dim=-1)
        return base + self.gamma * proxy

    def base_and_proxy(
        self,
        text_state: UnitVectors,
        video_state: ProxyVideoState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Compute both cosines of each pair, shape ``(Bt, Bv, 2)``."""
        proxies = self.proxies(text_state, video_state, random)
        with torch.autocast(proxies.device.type, enabled=False):
            video = video_state.embeds
            return torch.stack(
                [
                    text_state.embeds @ video.T,
                    F.cosine_similarity(
                        proxies, video.unsqueeze(1), dim=-1, eps=1e-12
                    ).T,
                ],
                dim=-1,
            )

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses of texts, proxies and matching proxies.

        Returns:
            dict[str, Tensor]: ``loss_match``, ``loss_proxy`` and
            ``loss_positive``; ``pos_score`` and ``neg_score`` to watch.
        """
        share = check_batch(text, video, self.check_features)
        return self.loss_of_states(
            self.prepare_text(text), self.prepare_video(video), share
        )

    def loss_of_states(
        self,
        text_state: UnitVectors,
        video_state: ProxyVideoState,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of prepared sides, paired row by row.

        Args:
            text_state (UnitVectors): Of the own texts.
            video_state (ProxyVideoState): Of the own videos.
            share (Share, optional): Which rows of the joint batch they are.
                Default: None, all of it.
        """
        random = self.next_random()
        share = share or Share(range(len(text_state)), lambda x: x)
        rows = share.rows
        everyone = gather_features(video_state)
        cosines = self.pairs_with_grad(
            self.base_and_proxy, text_state, everyone, rows, random
        )
        base, proxy = cosines.unbind(dim=-1)
        drawn = PairRandom.matching(random, rows) if self.training else None
        own = self._proxies(
            text_state.embeds.unsqueeze(1), video_state, drawn
        ).squeeze(1)
        positive = (
            F.normalize(own, dim=-1) @ F.normalize(everyone.embeds, dim=-1).T
        )
        losses = self.match_losses(base, share)
        for name, weight, scores in (
            ('loss_proxy', self.proxy_weight, proxy),
            ('loss_positive', self.positive_weight, positive),
        ):
            losses[name] = weight * self.match(scores, share)
        return losses

    def bytes_per_pair(self, training: bool) -> int:
        """Tell what one pair takes: vectors of the director."""
        vectors = 40 if training else 8
        return 4 * (vectors * self.embed_dim + self.num_tokens)

    def shortlist_video(self, video: VideoFeatures) -> Tensor:
        """Give the vectors of the base cosine."""
        return mean_of_unit_frames(video)


def _products(tokens: Tensor, text: Tensor) -> Tensor:
    """Products of tokens ``(Bv, M, D)`` and texts, ``(Bv, Bt, M)``."""
    # one product for all videos where they meet the same texts
    texts = text[0].T if len(text) == 1 else text.transpose(1, 2)
    return (tokens @ texts).transpose(1, 2)
