"""Captions of the gallery's videos, for protocols that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from eaglenet_mm.structures import TextFeatures

_BLOCK = 64


def own_captions(
    head: Any,
    columns: Sequence[int],
    num_videos: int,
    encode: Callable[[range], TextFeatures],
) -> TextFeatures:
    """Encode the caption of each video, in the order of the videos.

    Args:
        head (BasePairHead): Named in the message.
        columns (Sequence[int]): Column of the video of each caption, -1 for
            none.
        num_videos (int): Videos of the gallery.
        encode (Callable): Encodes a range of captions.

    Returns:
        TextFeatures: One text a video.

    Raises:
        ValueError: If there is not one caption for each video.
    """
    total = len(columns)
    if sorted(columns) != list(range(num_videos)):
        raise ValueError(
            f'{type(head).__name__} asks for the published protocol, which '
            f'exists for one caption a video, but there are {total} captions '
            f'of {len(set(columns) - {-1})} of the {num_videos} videos. Use '
            "evaluation='pairwise'."
        )
    texts = TextFeatures.cat(
        [
            encode(range(start, min(start + _BLOCK, total)))
            for start in range(0, total, _BLOCK)
        ]
    )
    order = torch.tensor(columns).argsort().to(texts.embeds.device)
    return texts.index_select(order)
