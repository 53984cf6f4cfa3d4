"""The parts of a head as modules from tensors to tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.structures.features import Features


class PrepareText(nn.Module):
    """From the outputs of a text encoder to the text side of a head.

    Args:
        head (nn.Module): The head.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        embeds: Tensor,
        tokens: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Give the tensors of the state."""
        text = TextFeatures(embeds, tokens, token_mask)
        state = self.head.prepare_text(text)
        return own_tensors(state)


class PrepareVideo(nn.Module):
    """From the outputs of a video encoder to the video side of a head.

    Args:
        head (nn.Module): The head.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        frames: Tensor,
        feature_mask: Tensor,
        patches: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Give the tensors of the state."""
        video = VideoFeatures(frames, feature_mask, patches)
        state = self.head.prepare_video(video)
        return own_tensors(state)


class Score(nn.Module):
    """From the tensors of both states to the scores of all pairs.

    Args:
        head (nn.Module): The head.
        text_state (Features): Of any texts; says what the tensors are.
        video_state (Features): Likewise.
    """

    def __init__(
        self, head: Any, text_state: Features, video_state: Features
    ) -> None:
        super().__init__()
        self.head = head
        self._text_state = text_state
        self._video_state = video_state

    def forward(
        self, text_state: tuple[Tensor, ...], video_state: tuple[Tensor, ...]
    ) -> Tensor:
        """Score every text against every video, shape ``(texts, videos)``."""
        texts, videos = iter(text_state), iter(video_state)
        return self.head.score(
            self._text_state.map(lambda _: next(texts)),
            self._video_state.map(lambda _: next(videos)),
        )


def own_tensors(state: Features) -> tuple[Tensor, ...]:
    """Give the tensors of a state, each contiguous and in memory of its own.

    A file is traced for one order of the axes in memory and refuses others;
    and in ONNX an output that is an input loses its name.

    Args:
        state (Features): Of a head.

    Returns:
        tuple[Tensor, ...]: In the order of :meth:`Features.tensors`.
    """
    return tuple(
        x.clone(memory_format=torch.contiguous_format) for x in state.tensors()
    )


def tensor_names(state: Features, prefix: str) -> Iterator[str]:
    """Name the tensors of a state, nested ones by a dotted path.

    Args:
        state (Features): Of a head.
        prefix (str): Before each name.

    Returns:
        Iterator[str]: In the order of :meth:`Features.tensors`.
    """
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Features):
            yield from tensor_names(value, f'{prefix}.{field.name}')
        elif value is not None:
            yield f'{prefix}.{field.name}'
