"""TV-ProxyNet: each text gets a proxy of its own for each video."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import (
    TrainingBatch,
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.heads.seeded_head import SeededHead
from eaglenet_mm.models.layers import PairRandom
from eaglenet_mm.models.layers.keyed_random import check_dropout
from eaglenet_mm.models.layers.text_director import (
    DirectorLayer,
    ProxyVideoState,
)
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import EmbedsState, TextFeatures, VideoFeatures


@MODELS.register_module()
class TextProxyHead(SeededHead):
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

    Example:
        >>> TextProxyHead(embed_dim=32, num_frames=8)(text, video).shape
        torch.Size([3, 4])
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
        num_tokens = num_frames if num_tokens is None else num_tokens
        super().__init__(
            loss_match,
            memory_budget,
            init_cfg,
            embed_dim=embed_dim,
            num_frames=num_frames,
            # vectors of the director
            numbers_per_pair=(
                8 * embed_dim + num_tokens,
                40 * embed_dim + num_tokens,
            ),
        )
        if (
            dash not in ('theta', 'linear')
            or not 1 <= num_tokens <= num_frames
        ):
            raise ValueError(
                "dash must be 'theta' or 'linear' and num_tokens from 1 to "
                f'num_frames={num_frames}, but got {dash!r} and {num_tokens}.'
            )
        check_dropout(dropout)
        self.gamma = gamma
        self.num_tokens = num_tokens
        self.delta, self.eta = delta, eta
        self.use_frame_mask = self.needs_real_frames = use_frame_mask
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

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another size, or without a real frame to see."""
        super().check_video(video)
        unseen = ~video.frame_mask[:, : self.num_tokens].any(dim=1)
        if self.use_frame_mask and bool(unseen.any()):
            raise ValueError(
                'TextProxyHead sees the first num_tokens='
                f'{self.num_tokens} frames, but {int(unseen.sum())} videos '
                'have padding alone there, the first at position '
                f'{int(unseen.nonzero()[0])}. Put real frames first, or '
                'raise num_tokens.'
            )

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """Bring sentences to unit length, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(unit_sentences(text))

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
        text_state: EmbedsState,
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

    def score(
        self,
        text_state: EmbedsState,
        video_state: ProxyVideoState,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Compute ``base + gamma * proxy``, with dropout if ``random``."""
        base, proxy = self.base_and_proxy(
            text_state, video_state, random
        ).unbind(dim=-1)
        return base + self.gamma * proxy

    def base_and_proxy(
        self,
        text_state: EmbedsState,
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
        return self.batch_losses(self.open_batch(text, video))

    def batch_losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Compute the losses of prepared sides; see :meth:`loss`."""
        base, proxy = batch.map(self.base_and_proxy).unbind(dim=-1)
        drawn = None
        if batch.grid.random is not None:
            drawn = PairRandom.matching(batch.grid.random, batch.share.rows)
        own = self._proxies(
            batch.text.embeds.unsqueeze(1), batch.video, drawn
        ).squeeze(1)  # (b, D)
        videos = F.normalize(batch.all_videos.embeds, dim=-1)
        positive = F.normalize(own, dim=-1) @ videos.T  # (b, B)
        losses = self.match_losses(base, batch.share)
        for name, weight, scores in (
            ('loss_proxy', self.proxy_weight, proxy),
            ('loss_positive', self.positive_weight, positive),
        ):
            losses[name] = weight * self.match(scores, batch.share)
        return losses


def _products(tokens: Tensor, text: Tensor) -> Tensor:
    """Products of tokens ``(Bv, M, D)`` and texts, ``(Bv, Bt, M)``."""
    # one product for all videos where they meet the same texts
    texts = text[0].T if len(text) == 1 else text.transpose(1, 2)
    return (tokens @ texts).transpose(1, 2)
