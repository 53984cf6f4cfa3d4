"""Features that encoders return and heads take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

FeaturesT = TypeVar('FeaturesT', bound='Features')


@dataclass
class Features:
    """Base class of dataclasses whose tensors share their first axis.

    Fields may be None or nested :class:`Features`. Heads derive the states
    that they prepare from it.

    Example:
        >>> texts = TextFeatures(torch.zeros(5, 512))
        >>> [len(part) for part in texts.split(2)]
        [2, 2, 1]
    """

    def map(
        self: FeaturesT, function: Callable[[Tensor], Tensor]
    ) -> FeaturesT:
        """Apply a function to each tensor that is present."""
        mapped: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Features):
                mapped[field.name] = value.map(function)
            else:
                mapped[field.name] = None if value is None else function(value)
        return type(self)(**mapped)

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over the tensors that are present, including nested ones."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Features):
                yield from value.tensors()
            elif value is not None:
                yield value

    def __len__(self) -> int:
        return next(self.tensors()).shape[0]

    def to(
        self: FeaturesT, device: torch.device | str | torch.dtype
    ) -> FeaturesT:
        """Move to a device, or change the dtype of floating-point tensors."""
        if isinstance(device, torch.dtype):
            dtype = device
            return self.map(
                lambda x: x.to(dtype) if x.is_floating_point() else x
            )
        return self.map(lambda x: x.to(device))

    def index_select(self: FeaturesT, index: Tensor | slice) -> FeaturesT:
        """Select rows by an index tensor or a slice."""
        return self.map(lambda x: x[index])

    def split(self: FeaturesT, size: int) -> list[FeaturesT]:
        """Split into parts of ``size`` rows; the last may be smaller.

        The backward pass is cheaper than that of slices, each of which would
        be padded to the full size.
        """
        pieces: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                pieces[field.name] = value.split(size)
        count = len(next(iter(pieces.values())))
        return [
            type(self)(**{name: parts[i] for name, parts in pieces.items()})
            for i in range(count)
        ]

    @classmethod
    def cat(cls: type[FeaturesT], parts: Sequence[FeaturesT]) -> FeaturesT:
        """Concatenate along the first axis.

        Raises:
            ValueError: If there are no parts, or a field is present in only
                some of them.
        """
        if not parts:
            raise ValueError(f'{cls.__name__}.cat needs at least one part.')
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            present = [value for value in values if value is not None]
            if present and len(present) != len(values):
                raise ValueError(
                    f"'{field.name}' is present in {len(present)} of "
                    f'{len(values)} {cls.__name__} only, so they cannot be '
                    'joined.'
                )
            if present and isinstance(present[0], Features):
                joined[field.name] = type(present[0]).cat(present)
            else:
                joined[field.name] = torch.cat(present) if present else None
        return cls(**joined)


@dataclass
class EmbedsState(Features):
    """State of one vector per item, for heads that need no more.

    Args:
        embeds (Tensor): Shape ``(B, D)``.
    """

    embeds: Tensor


@dataclass
class TextFeatures(Features):
    """Features of ``Bt`` sentences.

    Args:
        embeds (Tensor): Sentence embeddings, not normalised, ``(Bt, D)``.
        tokens (Tensor, optional): Token embeddings, ``(Bt, L, D)``.
        token_mask (Tensor, optional): True for real tokens, ``(Bt, L)``.

    Example:
        >>> len(TextFeatures(torch.zeros(5, 512)))
        5
    """

    embeds: Tensor
    tokens: Tensor | None = None
    token_mask: Tensor | None = None


@dataclass
class VideoFeatures(Features):
    """Features of ``Bv`` videos.

    Args:
        frames (Tensor): Frame embeddings, not normalised, ``(Bv, F, D)``.
        frame_mask (Tensor): True for real frames, ``(Bv, F)``.
        patches (Tensor, optional): Patch embeddings, ``(Bv, F, N, D)``.
        video_ids (Tensor, optional): Equal for equal videos, used by losses
            only; int64, ``(Bv,)``.

    Example:
        >>> mask = torch.ones(4, 12, dtype=torch.bool)
        >>> video = VideoFeatures(torch.zeros(4, 12, 512), mask)
        >>> video.index_select(slice(2)).frames.shape
        torch.Size([2, 12, 512])
    """

    frames: Tensor
    frame_mask: Tensor
    patches: Tensor | None = None
    video_ids: Tensor | None = None
