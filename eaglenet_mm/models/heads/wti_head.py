"""DRL: weighted token-wise interaction of words and frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eaglenet_mm.models.heads.base_pair_head import (
    SeededHead,
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features

#: Weighted token-wise, token-wise, and dot product.
INTERACTIONS = ('wti', 'ti', 'dp')


@dataclass
class WeightedTokens(Features):
    """Words of ``B`` texts or frames of ``B`` videos."""

    embeds: Tensor  # L2-normalised, (B, N, D)
    weights: Tensor  # sum 1 over real tokens, (B, N)
    mask: Tensor  # True for real tokens, (B, N)

    def masked(self) -> Tensor:
        """Embeddings with padding set to zero, shape ``(B, N, D)``."""
        return self.embeds * self.mask.unsqueeze(-1)


@MODELS.register_module()
class WTIHead(SeededHead):
    """Mean similarity of words to their best frame and frames to their word.

    Implements the weighted token-wise interaction of `DRL
    <https://arxiv.org/abs/2203.07111>`_: the maximum cosine similarity of
    each word over the frames and of each frame over the words, averaged with
    weights predicted from the tokens (``'wti'``) or equal weights (``'ti'``).
    Both need a text encoder that returns tokens. ``'dp'`` is the dot product
    of the sentence and the mean L2-normalised frame. Training can add channel
    decorrelation, ``loss_decorrelation``.

    Differs from the release: padding is never the best match (in the release
    it has similarity 0, the best if all others are negative); the cross
    transformer (``xti``) is :class:`CrossTransformerHead`; the weight layers
    get the gradient of the joint batch, as the encoders do.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video, including padding.
        interaction (str): ``'wti'``, ``'ti'`` or ``'dp'``.
            Default: ``'wti'``.
        num_weight_layers (int): Linear layers of the weights, 1 to 3.
            Default: 2.
        release_mask (bool): Give padding a similarity of 0, as the release
            does. Default: False.
        temporal (dict, optional): Config of the temporal module of the
            frames. Default: None.
        max_words (int): Tokens per text, to size chunks. Default: 32.
        loss_decorrelation (dict, optional): Config of
            :class:`ChannelDecorrelationLoss`. Default: None.
        **kwargs: Options of :class:`BasePairHead`.

    Raises:
        ValueError: If an option is unknown.

    Example:
        >>> head = WTIHead(embed_dim=32, num_frames=8)
        >>> words = torch.randn(3, 5, 32), torch.ones(3, 5).bool()
        >>> head(TextFeatures(text.embeds, *words), video).shape
        torch.Size([3, 4])
    """

    needs_real_frames = True

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        interaction: str = 'wti',
        num_weight_layers: int = 2,
        release_mask: bool = False,
        temporal: dict | None = None,
        max_words: int = 32,
        loss_decorrelation: dict | None = None,
        **kwargs: Any,
    ) -> None:
        words, frames = max_words, num_frames
        if interaction == 'dp':
            words = frames = 1
        few = 3 * (words + frames) + 1
        super().__init__(
            embed_dim=embed_dim,
            num_frames=num_frames,
            numbers_per_pair=(
                3 * words * frames + few,
                4 * words * frames + few,
            ),
            **kwargs,
        )
        if interaction not in INTERACTIONS or not 1 <= num_weight_layers <= 3:
            raise ValueError(
                f'interaction must be one of {INTERACTIONS} and '
                f'num_weight_layers from 1 to 3, but got {interaction!r} and '
                f'{num_weight_layers}.'
            )
        self.interaction = interaction
        self.needs_tokens = interaction != 'dp'
        self.release_mask = release_mask
        self.temporal = None if temporal is None else MODELS.build(temporal)
        self.keeps_state = self.temporal is not None
        self.text_weight = self.video_weight = None
        if interaction == 'wti':
            self.text_weight = _weight_layers(embed_dim, num_weight_layers)
            self.video_weight = _weight_layers(embed_dim, num_weight_layers)
        self.loss_decorrelation = (
            None
            if loss_decorrelation is None
            else MODELS.build(loss_decorrelation)
        )

    def prepare_text(self, text: TextFeatures) -> WeightedTokens:
        """Normalise and weight the words of each text."""
        self.check_text(text)
        if self.interaction == 'dp':
            return _one_token(unit_sentences(text))
        tokens: Any = text.tokens
        mask: Any = text.token_mask
        return _weight_tokens(tokens, mask, self.text_weight)

    def prepare_video(self, video: VideoFeatures) -> WeightedTokens:
        """Normalise and weight the frames, after the temporal module."""
        self.check_video(video)
        if self.temporal is not None:
            frames = self.temporal(video.frames, video.frame_mask)
            video = replace(video, frames=frames)
        if self.interaction == 'dp':
            return _one_token(mean_of_unit_frames(video))
        return _weight_tokens(
            video.frames, video.frame_mask, self.video_weight
        )

    def score(
        self, text_state: WeightedTokens, video_state: WeightedTokens
    ) -> Tensor:
        """Match words and frames of each pair, shape ``(Bt, Bv)``."""
        with torch.autocast(text_state.embeds.device.type, enabled=False):
            # masks go on the cosines, which are often smaller than the tokens
            cosines = torch.tensordot(
                text_state.embeds, video_state.embeds, dims=([2], [2])
            )  # (Bt, L, Bv, F)
            no_word = ~text_state.mask[:, :, None, None]
            no_frame = ~video_state.mask
            if self.release_mask:
                for_words = for_frames = cosines.masked_fill(
                    no_word | no_frame, 0.0
                )
            else:
                lowest = float('-inf')
                for_words = cosines.masked_fill(no_frame, lowest)
                for_frames = cosines.masked_fill(no_word, lowest)
            words = for_words.amax(dim=3)  # (Bt, L, Bv)
            frames = for_frames.amax(dim=1)  # (Bt, Bv, F)
            by_words = (words * text_state.weights.unsqueeze(-1)).sum(dim=1)
            by_frames = (frames * video_state.weights).sum(dim=-1)
            return (by_words + by_frames) / 2

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class.

        Returns:
            dict[str, Tensor]: ``loss_match``, ``loss_decorrelation`` if set,
            and the statistics of :meth:`match_losses`.
        """
        batch = self.open_batch(text, video)
        scores = batch.map(lambda texts, videos, _: self.score(texts, videos))
        losses = self.match_losses(scores, batch.share)
        if self.loss_decorrelation is not None:
            losses['loss_decorrelation'] = self.loss_decorrelation(
                gather_features(batch.text), batch.all_videos, batch.random
            )
        return losses


def _one_token(embeds: Tensor) -> WeightedTokens:
    """Wrap L2-normalised vectors ``(B, D)`` as one token each."""
    ones = embeds.new_ones(len(embeds), 1)
    return WeightedTokens(embeds.unsqueeze(1), ones, ones.bool())


def _weight_layers(embed_dim: int, num_layers: int) -> nn.Sequential:
    """MLP that predicts token weights."""
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [nn.Linear(embed_dim, embed_dim), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(embed_dim, 1))


def _weight_tokens(
    tokens: Tensor, mask: Tensor, layers: nn.Module | None
) -> WeightedTokens:
    """Normalise tokens ``(B, N, D)`` and weight the real ones."""
    logits = (
        tokens.new_zeros(mask.shape)
        if layers is None
        else layers(tokens).squeeze(-1)
    )
    logits = at_least_float32(logits).masked_fill(~mask, float('-inf'))
    unit = F.normalize(at_least_float32(tokens), dim=-1)
    return WeightedTokens(unit, logits.softmax(dim=-1).to(unit), mask)
