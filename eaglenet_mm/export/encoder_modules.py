"""Encoders as modules from tensors to tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TextModule(nn.Module):
    """From token ids to what a text encoder gives.

    Args:
        encoder (nn.Module): Gives :class:`~eaglenet_mm.structures.
            TextFeatures`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, token_ids: Tensor) -> tuple[Tensor, ...]:
        """Give ``embeds`` and, if the encoder does, tokens and their mask."""
        text = self.encoder(token_ids)
        parts = (text.embeds, text.tokens, text.token_mask)
        return tuple(x for x in parts if x is not None)


class VideoModule(nn.Module):
    """From normalised pixels to what a video encoder gives.

    Args:
        encoder (nn.Module): Gives :class:`~eaglenet_mm.structures.
            VideoFeatures`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, pixels: Tensor, frame_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Give ``frames``, their mask and, if the encoder does, patches."""
        video = self.encoder(pixels, frame_mask)
        # an output of its own, also where it is the input
        mask = video.frame_mask.clone()
        if video.patches is None:
            return video.frames, mask
        return video.frames, mask, video.patches


class RawVideoModule(VideoModule):
    """From raw frames to what a video encoder gives.

    Normalises as :class:`~eaglenet_mm.models.data_preprocessor.
    RetrievalDataPreprocessor` does: padded frames are zero afterwards.

    Args:
        encoder (nn.Module): See the base class.
        mean (Sequence[float]): Of the three colours, in [0, 1] units.
        std (Sequence[float]): Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(encoder)
        for name, value in (('mean', mean), ('std', std)):
            numbers = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, numbers.view(3, 1, 1))

    def forward(
        self, pixels: Tensor, frame_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Normalise uint8 frames, then encode them."""
        normalised = (pixels.float() / 255 - self.mean) / self.std
        is_real = frame_mask[:, :, None, None, None]
        return super().forward(
            torch.where(is_real, normalised, 0.0), frame_mask
        )
