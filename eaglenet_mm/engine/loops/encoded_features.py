"""What encoders return, made fit for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eaglenet_mm.structures import TextFeatures, VideoFeatures


def to_full_precision(features: Any) -> Any:
    """Cast half-precision features to float32; leave other types alone.

    Args:
        features (Features): Of either side.

    Returns:
        Features: The same fields.
    """
    half = (torch.float16, torch.bfloat16)
    return features.map(lambda x: x.float() if x.dtype in half else x)


def check_videos(videos: VideoFeatures, video_ids: Sequence[str]) -> None:
    """Refuse video features that are not finite.

    Args:
        videos (VideoFeatures): Of ``Bv`` videos.
        video_ids (Sequence[str]): Their ids.

    Raises:
        ValueError: If a feature is not finite; the message names the videos.
    """
    for name in ('frames', 'patches'):
        values = getattr(videos, name)
        if values is None:
            continue
        finite = torch.isfinite(values).flatten(1).all(dim=1)  # (Bv,)
        broken = [video_ids[i] for i in torch.where(~finite)[0].tolist()]
        if broken:
            raise ValueError(
                f'Video features must be finite, but {len(broken)} of '
                f"{len(finite)} videos have a non-finite value in '{name}': "
                f'{broken[:5]}. Look at the weights, and at these files.'
            )


def check_texts(text: TextFeatures, caption_indices: Sequence[int]) -> None:
    """Refuse text features that are not finite.

    Args:
        text (TextFeatures): Of ``Bt`` captions.
        caption_indices (Sequence[int]): Their places in the annotation file.

    Raises:
        ValueError: If a feature is not finite; the message names the
            captions.
    """
    finite = torch.isfinite(text.embeds).all(dim=1)  # (Bt,)
    broken = [caption_indices[i] for i in torch.where(~finite)[0].tolist()]
    if broken:
        raise ValueError(
            'Text features must be finite, but those of captions '
            f'{broken[:5]} (counted in the order of the annotation file) are '
            f'not; {len(broken)} of {len(finite)} in this block. Look at the '
            'weights.'
        )
