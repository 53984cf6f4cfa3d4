"""TV-ProxyNet: a text proxy for each pair of text and video."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import (
    SeededHead,
    TrainingBatch,
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.layers import PairRandom
from eaglenet_mm.models.layers.keyed_random import check_dropout
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import (
    EmbedsState,
    Features,
    TextFeatures,
    VideoFeatures,
)


@dataclass
class DirectorLayerState(Features):
    """Keys and values of ``Bv`` videos in a director layer."""

    keys: Tensor  # query projection folded in, (Bv, M, D)
    key_bias: Tensor  # -inf at masked tokens, (Bv, M)
    values: Tensor  # output projection folded in, (Bv, M, D)


@dataclass
class ProxyVideoState(Features):
    """State of ``Bv`` videos."""

    embeds: Tensor  # L2-normalised, (Bv, D)
    unit_tokens: Tensor  # L2-normalised, zero where masked, (Bv, M, D)
    token_count: Tensor  # number of real tokens, (Bv,)
    layer1: DirectorLayerState
    layer2: DirectorLayerState


class DirectorLayer(nn.Module):
    """Single-head cross attention with one query per pair, and an MLP.

    ``q = norm1(x); x = q + attention(q, norm2(tokens)); x = norm3(x);
    x = norm4(x + linear2(relu(linear1(x))))``. The residual is the normalised
    query. Query and output projections are folded into keys and values, so a
    pair costs ``4 M D + 4 D^2`` operations.
    """

    def __init__(self, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self.linear1 = nn.Linear(embed_dim, embed_dim)
        self.linear2 = nn.Linear(embed_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.norm4 = nn.LayerNorm(embed_dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.output.bias)

    def prepare_tokens(
        self, tokens: Tensor, token_mask: Tensor
    ) -> DirectorLayerState:
        """Compute keys and values of each video."""
        width = tokens.shape[-1]
        query_w, key_w, value_w = self.qkv.weight.chunk(3)
        query_b, key_b, value_b = self.qkv.bias.chunk(3)
        normed = float32_layer_norm(self.norm2, tokens).to(tokens.dtype)
        keys = F.linear(normed, key_w, key_b) / math.sqrt(width)
        bias = (keys @ query_b).masked_fill(~token_mask, float('-inf'))
        values = F.linear(
            F.linear(normed, value_w, value_b), self.output.weight
        )
        return DirectorLayerState(keys @ query_w, bias, values)

    def forward(
        self,
        x: Tensor,
        state: DirectorLayerState,
        random: PairRandom | None,
        name: str,
    ) -> Tensor:
        """Update the query of each pair, ``(Bv or 1, Bt, D)``."""

        def drop(values: Tensor, place: str) -> Tensor:
            if random is None:
                return values
            mask = random.dropout_mask(
                f'{name} {place}',
                values.shape[-1],
                rate=self.dropout,
                like=values,
            )
            return values if mask is None else values * mask

        query = float32_layer_norm(self.norm1, x)
        logits = query.to(state.keys.dtype) @ state.keys.transpose(1, 2)
        logits = at_least_float32(logits + state.key_bias.unsqueeze(1))
        weights = drop(logits.softmax(dim=-1), 'attention')
        # the output bias is not folded in: dropped weights do not sum to 1
        attended = weights.to(state.values.dtype) @ state.values
        x = query + drop(attended + self.output.bias, 'attended')
        x = float32_layer_norm(self.norm3, x)
        hidden = self.linear1(x.to(self.linear1.weight.dtype)).relu()
        x = x + drop(self.linear2(drop(hidden, 'hidden')), 'output')
        return float32_layer_norm(self.norm4, x)


@MODELS.register_module()
class TextProxyHead(SeededHead):
    """Cosine similarity of text and video, plus that of a text proxy.

    Implements the head of TV-ProxyNet (AAAI 2025). The proxy of a pair is the
    text moved in the direction given by a decoder over the video tokens (the
    director), by a length computed from the cosine similarities of text and
    tokens (the dash). Scores are ``base + gamma * proxy``, the cosine
    similarities of text and proxy with the video.

    Differs from the release: the video embedding is the mean of the
    L2-normalised frames, and the frames are the tokens (the release uses
    CLIP-ViP, which has video tokens); ``gamma`` is a fixed number (the
    release reports the best of ten values on the test set); a linear dash
    covers the tokens that the director sees; gradients of several processes
    are those of the joint batch (in the release, those of other samples);
    padded frames are masked.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Tokens ``M`` per video, including padding.
        gamma (float): Weight of the proxy in the score. Default: 0.5.
        num_tokens (int, optional): Number of leading tokens that the director
            sees; at least one must be real. Default: None, all.
        dash (str): ``'theta'``, one length per pair, or ``'linear'``, one per
            channel. Default: ``'theta'``.
        delta (float): Weight of the text in the direction. Default: 1.
        eta (float): Weight of the director, subtracted. Default: 1.
        dropout (float): Dropout rate of the director. Default: 0.1.
        use_frame_mask (bool): Mask padded frames. Default: True.
        proxy_weight (float): Weight of the proxy loss. Default: 0.5.
        positive_weight (float): Weight of the loss of matching proxies
            against all videos. Default: 0.25.
        **kwargs: Options of :class:`BasePairHead`. The published loss is
            ``InfoNCELoss(loss_weight=2, max_scale=200)``.

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
        proxy_weight: float = 0.5,
        positive_weight: float = 0.25,
        **kwargs: Any,
    ) -> None:
        num_tokens = num_frames if num_tokens is None else num_tokens
        super().__init__(
            embed_dim=embed_dim,
            num_frames=num_frames,
            # activations of the director
            numbers_per_pair=(
                8 * embed_dim + num_tokens,
                40 * embed_dim + num_tokens,
            ),
            **kwargs,
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
        self.layer2 = copy.deepcopy(self.layer1)  # as in the release
        self.norm = nn.LayerNorm(embed_dim)
        self.theta = self.dash = None
        if dash == 'theta':
            self.theta = nn.Parameter(torch.rand(1))
        else:
            self.dash = nn.Linear(num_tokens, embed_dim)

    def check_video(self, video: VideoFeatures) -> None:
        """Check sizes, and that the director sees a real frame."""
        super().check_video(video)
        unseen = ~video.frame_mask[:, : self.num_tokens].any(dim=1)
        if self.use_frame_mask and bool(unseen.any()):
            raise ValueError(
                'TextProxyHead sees the first num_tokens='
                f'{self.num_tokens} frames, but {int(unseen.sum())} videos '
                'have only padding there, the first at position '
                f'{int(unseen.nonzero()[0])}. Put real frames first, or '
                'raise num_tokens.'
            )

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """L2-normalise the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(unit_sentences(text))

    def prepare_video(self, video: VideoFeatures) -> ProxyVideoState:
        """Precompute the video embedding and the inputs of the director."""
        self.check_video(video)
        mask = video.frame_mask
        if not self.use_frame_mask:
            mask = torch.ones_like(mask)
        embeds = mean_of_unit_frames(replace(video, frame_mask=mask))
        return self.prepare_tokens(video.frames, mask, embeds)

    def prepare_tokens(
        self, tokens: Tensor, token_mask: Tensor, embeds: Tensor
    ) -> ProxyVideoState:
        """Prepare videos from tokens and a separate video embedding.

        Args:
            tokens (Tensor): Not normalised, shape ``(Bv, M, D)``.
            token_mask (Tensor): True for real tokens, at least one among the
                first ``num_tokens``, shape ``(Bv, M)``.
            embeds (Tensor): L2-normalised, shape ``(Bv, D)``.
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
        """Compute the proxy of each text for each video, ``(Bv, Bt, D)``."""
        return self._proxies(
            text_state.embeds.unsqueeze(0), video_state, random
        )

    def _proxies(
        self, text: Tensor, video_state: ProxyVideoState, random: Any
    ) -> Tensor:
        """Proxies of texts ``(1, Bt, D)``, or of one per video."""
        x = self.layer1(text, video_state.layer1, random, 'one')
        x = self.layer2(x, video_state.layer2, random, 'two')
        directed = float32_layer_norm(self.norm, x)
        with torch.autocast(text.device.type, enabled=False):
            direction = F.normalize(
                self.delta * text - self.eta * directed, dim=-1
            )
            return text + self._dash(text, video_state) * direction

    def _dash(self, text: Tensor, video: ProxyVideoState) -> Tensor:
        """Length of the displacement, ``(Bv, Bt, 1)`` or ``(Bv, Bt, D)``."""
        text = F.normalize(text, dim=-1)  # changes only the gradient
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
        """Compute both cosine similarities of a pair, ``(Bt, Bv, 2)``."""
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
            dict[str, Tensor]: ``loss_match``, ``loss_proxy``,
            ``loss_positive`` and the statistics of :meth:`match_losses`.
        """
        return self.batch_losses(self.open_batch(text, video))

    def batch_losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Compute the losses of a prepared batch; see :meth:`loss`."""
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
    # a single product if all videos meet the same texts
    texts = text[0].T if len(text) == 1 else text.transpose(1, 2)
    return (tokens @ texts).transpose(1, 2)
