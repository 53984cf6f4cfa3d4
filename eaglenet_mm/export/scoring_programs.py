"""The parts of a head as programs, with random features to check them on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.structures.features import FeaturesT

from .program import Program
from .scoring_modules import (
    PrepareText,
    PrepareVideo,
    Score,
    own_tensors,
    tensor_names,
)


def scoring_programs(
    head: Any, text: TextFeatures, video: VideoFeatures
) -> list[Program]:
    """Describe the three parts of a head for their export.

    Args:
        head (BasePairHead): The head.
        text (TextFeatures): Of one text or more; an example.
        video (VideoFeatures): Likewise.

    Returns:
        list[Program]: Text side, video side, scores.
    """
    head.check_features(text, video)
    head = copy.deepcopy(head, uncompiled(head)).float().eval()
    head.requires_grad_(False)
    for name, _ in list(head.named_children()):
        if name.startswith('loss'):  # would only make the files larger
            setattr(head, name, None)
    # these look at values, which an export cannot
    head.check_text = head.check_video = _accept

    def draw_text(texts: int) -> tuple[Tensor, ...]:
        return tuple(_draw(text, texts).tensors())

    def draw_video(videos: int) -> tuple[Tensor, ...]:
        return tuple(_draw(video, videos).tensors())

    @torch.no_grad()
    def draw_states(
        texts: int, videos: int
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        text_state = head.prepare_text(_draw(text, texts))
        video_state = head.prepare_video(_draw(video, videos))
        return own_tensors(text_state), own_tensors(video_state)

    with torch.no_grad():
        text_state = head.prepare_text(_draw(text, 2))
        video_state = head.prepare_video(_draw(video, 2))
    text_names = list(tensor_names(text_state, 'text'))
    video_names = list(tensor_names(video_state, 'video'))
    texts, videos = {0: 'texts'}, {0: 'videos'}
    return [
        Program(
            name='prepare_text',
            module=PrepareText(head),
            input_names=list(_feature_names(text)),
            output_names=text_names,
            axes=tuple(texts for _ in text.tensors()),
            draw=draw_text,
            sizes=dict(texts=3),
            other_sizes=[dict(texts=1), dict(texts=8)],
        ),
        Program(
            name='prepare_video',
            module=PrepareVideo(head),
            input_names=list(_feature_names(video)),
            output_names=video_names,
            axes=tuple(videos for _ in video.tensors()),
            draw=draw_video,
            sizes=dict(videos=3),
            other_sizes=[dict(videos=1), dict(videos=8)],
        ),
        Program(
            name='scoring',
            module=Score(head, text_state, video_state),
            input_names=text_names + video_names,
            output_names=['scores'],
            axes=(
                tuple(texts for _ in text_names),
                tuple(videos for _ in video_names),
            ),
            draw=draw_states,
            sizes=dict(texts=3, videos=4),
            other_sizes=[
                dict(texts=1, videos=1),
                dict(texts=1, videos=9),
                dict(texts=6, videos=2),
            ],
        ),
    ]


def _feature_names(features: TextFeatures | VideoFeatures) -> list[str]:
    """Name features as the files of the encoders name their outputs."""
    names = [name[1:] for name in tensor_names(features, '')]
    return ['feature_mask' if x == 'frame_mask' else x for x in names]


def _draw(like: FeaturesT, rows: int) -> FeaturesT:
    """Draw features of the shapes of others; at least one place is real."""
    generator = torch.Generator().manual_seed(rows)

    def draw(x: Tensor) -> Tensor:
        shape = (rows, *x.shape[1:])
        if x.dtype != torch.bool:
            return torch.randn(shape, generator=generator).to(x.device)
        places = torch.arange(x.shape[1])
        ends = torch.randint(
            1, len(places) + 1, (rows, 1), generator=generator
        )
        return (places < ends).to(x.device)

    return like.map(draw)


def _accept(features: Any) -> None:
    """Take any features."""


def uncompiled(head: Any) -> dict[int, Any]:
    """Leave out of a copy what ``torch.compile`` made, as ``copy`` asks."""
    compiled = getattr(head, 'compiled_score', None)
    return {} if compiled is None else {id(compiled): None}
