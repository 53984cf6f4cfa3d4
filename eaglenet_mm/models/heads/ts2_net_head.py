"""TS2-Net: token selection per frame, and frames weighted by the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from eaglenet_mm.models.heads.base_pair_head import SeededHead, unit_sentences
from eaglenet_mm.models.layers.temporal import TemporalTransformer
from eaglenet_mm.models.losses import Share
from eaglenet_mm.models.precision import at_least_float32, float32_layer_norm
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import (
    EmbedsState,
    Features,
    TextFeatures,
    VideoFeatures,
)


@dataclass
class UnitFrames(Features):
    """L2-normalised frames."""

    embeds: Tensor  # (Bv, F, D)
    mask: Tensor  # True for real frames, (Bv, F)


class _SoftTopK(Function):
    """Perturbed top-k: mean indicator of the k largest noisy scores.

    The gradient is that of the perturbed maximum: each entry of the indicator
    depends on its own score only, by the mean of indicator times noise over
    sigma.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, noise: Tensor, count: int, sigma: float
    ) -> Tensor:
        # scores (N, M), noise (N or 1, samples, M)
        places = (scores.unsqueeze(1) + sigma * noise).topk(count, dim=-1)
        chosen = places.indices.sort(dim=-1).values  # (N, samples, k)
        shape = (len(scores), count, scores.shape[-1])
        share = 1.0 / noise.shape[1]
        indicator = scores.new_zeros(shape)
        moved = scores.new_zeros(shape)
        # one rank at a time, to avoid the indicators of all samples at once
        for rank in range(count):
            index = chosen[..., rank]  # (N, samples)
            values = noise.expand(len(scores), -1, -1).gather(
                -1, index.unsqueeze(-1)
            )
            indicator[:, rank].scatter_add_(
                -1, index, torch.full_like(index, share, dtype=scores.dtype)
            )
            moved[:, rank].scatter_add_(
                -1, index, values.squeeze(-1) * (share / sigma)
            )
        ctx.save_for_backward(moved)
        return indicator

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (moved,) = ctx.saved_tensors
        return (gradient * moved).sum(dim=1), None, None, None


class TokenSelector(nn.Module):
    """Selection of the class token and the best patches of each frame.

    Patches are scored from themselves and the class token, and selected by a
    perturbed top-k.
    """

    def __init__(
        self, embed_dim: int, num_selected: int, sigma: float
    ) -> None:
        super().__init__()
        half = embed_dim // 2
        self.num_selected = num_selected
        self.sigma = sigma
        self.norm = nn.LayerNorm(embed_dim)
        self.inner = nn.Linear(embed_dim, half, bias=False)
        self.outer = nn.Linear(2 * half, half, bias=False)
        self.score = nn.Linear(half, 1, bias=False)
        for layer in (self.inner, self.outer, self.score):
            nn.init.normal_(layer.weight, std=0.02)

    def scores(self, tokens: Tensor) -> Tensor:
        """Score tokens ``(N, T, D)``, class token first, in [-1, 1]."""
        normed = float32_layer_norm(self.norm, tokens).to(
            self.inner.weight.dtype
        )
        hidden = F.gelu(self.inner(normed))
        first = hidden[:, :1].expand_as(hidden)
        hidden = F.gelu(self.outer(torch.cat([hidden, first], dim=-1)))
        return self.score(hidden).squeeze(-1).tanh()

    def forward(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """Select tokens of each frame in patch order, ``(N, 1 + k, D)``."""
        indicator = self.indicator(self.scores(tokens)[:, 1:], noise)
        chosen = indicator.to(tokens.dtype) @ tokens[:, 1:]
        return torch.cat([tokens[:, :1], chosen], dim=1)

    def indicator(self, scores: Tensor, noise: Tensor) -> Tensor:
        """Soft indicator of the best patches, shape ``(N, k, T - 1)``."""
        return _SoftTopK.apply(
            scores.float() if scores.dtype.itemsize < 4 else scores,
            noise.to(scores.device),
            self.num_selected,
            self.sigma,
        )


@MODELS.register_module()
class TS2NetHead(SeededHead):
    """Cosine similarities of text and frames, weighted by their softmax.

    Implements `TS2-Net <https://arxiv.org/abs/2207.07852>`_: the class token
    and a soft selection of patches per frame, a temporal transformer over all
    of them, and the frames' cosine similarities with the text, weighted by
    the softmax of their L2-normalised vector. The method's token shift is
    ``shift_layers`` of the video encoder, which must return patches.

    Differs from the release: selection noise in evaluation is a table, stored
    in the checkpoint and shared by all frames, so scores are reproducible;
    training noise depends on seed, step and position in the joint batch; and
    the selected tokens of a frame carry its mask. The release repeats the
    whole mask instead of each entry, which is correct only without padded
    frames; ``release_mask=True`` reproduces that.

    Args:
        embed_dim (int): Feature width ``D``.
        num_frames (int): Frames ``F`` per video, including padding.
        num_patches (int): Patches per frame.
        num_selected (int): Patches to select per frame. Default: 3.
        num_samples (int): Noise samples of the selection. Default: 500.
        sigma (float): Standard deviation of the noise. Default: 0.05.
        num_layers (int): Transformer blocks. Default: 4.
        num_heads (int, optional): Attention heads. Default: None, one per 64
            channels.
        release_mask (bool): Repeat masks as in the release. Default: False.
        noise_seed (int): Seed of the evaluation noise. Default: 0.
        **kwargs: Options of :class:`BasePairHead`.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> head = TS2NetHead(embed_dim=32, num_frames=8, num_patches=9)
        >>> video.patches = torch.randn(4, 8, 9, 32)
        >>> head(text, video).shape
        torch.Size([3, 4])
    """

    needs_patches = True
    keeps_state = True
    needs_real_frames = True
    noise_table: Tensor
    noise_axes: ClassVar[dict[int, str]] = {1: 'num_samples', 2: 'num_patches'}

    def __init__(
        self,
        embed_dim: int,
        num_frames: int,
        num_patches: int,
        num_selected: int = 3,
        num_samples: int = 500,
        sigma: float = 0.05,
        num_layers: int = 4,
        num_heads: int | None = None,
        release_mask: bool = False,
        noise_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim,
            num_frames=num_frames,
            numbers_per_pair=(5 * num_frames + 3, 8 * num_frames + 3),
            **kwargs,
        )
        if (
            not 1 <= num_selected <= num_patches
            or num_samples < 1
            or sigma <= 0
        ):
            raise ValueError(
                f'num_selected must be from 1 to num_patches={num_patches}, '
                'num_samples at least 1 and sigma above 0, but got '
                f'{num_selected}, {num_samples} and {sigma}.'
            )
        self.num_patches = num_patches
        self.num_samples = num_samples
        self.release_mask = release_mask
        self.selector = TokenSelector(embed_dim, num_selected, sigma)
        self.temporal = TemporalTransformer(
            embed_dim,
            num_layers,
            num_heads,
            max_positions=num_frames * (1 + num_selected),
        )
        self.register_buffer('noise_table', self._table(noise_seed))

    def check_video(self, video: VideoFeatures) -> None:
        """Check sizes, including the number of patches."""
        super().check_video(video)
        patches: Any = video.patches
        if patches.shape[2] != self.num_patches:
            raise ValueError(
                f'TS2NetHead was built for num_patches={self.num_patches}, '
                f'but frames have {patches.shape[2]}. Set num_patches to the '
                "video encoder's (image_size / patch_size) squared."
            )

    def reseed(self, seed: int) -> None:
        """Redraw the evaluation noise."""
        self.noise_table.copy_(self._table(seed))

    def _table(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(
            1, self.num_samples, self.num_patches, generator=generator
        )

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        """L2-normalise the sentences, shape ``(Bt, D)``."""
        self.check_text(text)
        return EmbedsState(unit_sentences(text))

    def prepare_video(self, video: VideoFeatures) -> UnitFrames:
        """Select tokens and run the temporal transformer."""
        return self.prepare_with_noise(video, self.noise_table)

    def prepare_batch(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        share: Share,
        random: Any,
    ) -> tuple[EmbedsState, UnitFrames]:
        """Prepare both states, in training with new noise per frame."""
        noise = self.noise_table
        if self.training:
            frames = video.frames.shape[1]
            places = torch.tensor(share.rows).unsqueeze(1) * frames
            keys = (places + torch.arange(frames)).flatten()
            shape = (self.num_samples, self.num_patches)
            noise = random.normal('token selection', keys, shape, noise)
        return self.prepare_text(text), self.prepare_with_noise(video, noise)

    def prepare_with_noise(
        self, video: VideoFeatures, noise: Tensor
    ) -> UnitFrames:
        """Prepare with standard normal ``(Bv * F or 1, samples, patches)``."""
        self.check_video(video)
        patches: Any = video.patches
        tokens = torch.cat([video.frames.unsqueeze(2), patches], dim=2)
        selected = self.selector(tokens.flatten(0, 1), noise)
        per_frame = selected.shape[1]
        selected = selected.unflatten(0, video.frames.shape[:2]).flatten(1, 2)
        mask = video.frame_mask
        if self.release_mask:
            tiled = mask.repeat(1, per_frame)
        else:
            tiled = mask.repeat_interleave(per_frame, dim=1)
        frames = self.temporal(selected, tiled)[:, ::per_frame]
        return UnitFrames(
            F.normalize(at_least_float32(frames), dim=-1),
            tiled[:, ::per_frame],
        )

    def score(
        self, text_state: EmbedsState, video_state: UnitFrames
    ) -> Tensor:
        """Weight and sum the frame similarities, shape ``(Bt, Bv)``."""
        text, frames = text_state.embeds, video_state.embeds
        with torch.autocast(text.device.type, enabled=False):
            cosines = (frames @ text.T).permute(2, 0, 1)  # (Bt, Bv, F)
            masked = cosines * video_state.mask
            lengths = masked.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            logits = (4 * masked / lengths).masked_fill(
                ~video_state.mask, float('-inf')
            )
            return (logits.softmax(dim=-1) * cosines).sum(dim=-1)
