"""What a batch must be to be trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.dist import get_world_size

from eaglenet_mm.models.losses import Share
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import (
    agree_on_share,
    gather_with_grad,
    own_rows,
)


def check_batch(
    text: TextFeatures,
    video: VideoFeatures,
    check_features: Callable[[TextFeatures, VideoFeatures], None],
) -> Share:
    """Refuse a batch that cannot be trained on; all processes call this.

    Args:
        text (TextFeatures): Of the own texts.
        video (VideoFeatures): Of the own videos.
        check_features (Callable): Of the head; raises a ``ValueError`` for
            features it cannot take.

    Returns:
        Share: What this process has of the joint batch, with the ids of all
        videos where they are known.

    Raises:
        ValueError: If processes differ in their share, there are no pairs,
            the sides differ in number or width, features are not finite or
            do not fit the head.
    """
    fault = find_fault(text, video)
    if fault is None:
        try:
            check_features(text, video)
        except ValueError as error:
            fault = str(error)
    ids = video.video_ids
    agree_on_share(len(text), fault, ids is not None)
    return Share(
        own_rows(len(text) * get_world_size()),
        gather_with_grad,
        None if ids is None else gather_with_grad(ids),
    )


def find_fault(text: TextFeatures, video: VideoFeatures) -> str | None:
    """Say what is wrong with the batch of this process, None if nothing."""
    if len(text) != len(video):
        return (
            'Training needs one text a video, but got '
            f'{len(text)} texts and {len(video)} videos. Wrap the dataset '
            'in CaptionExpansion, RandomCaption or ParagraphDataset.'
        )
    if len(text) == 0:
        return (
            'Training needs at least one pair, but the batch is empty. Set '
            'drop_last=True in the dataloader.'
        )
    if text.embeds.shape[-1] != video.frames.shape[-1]:
        return (
            'Text and video features must have the same width, but got '
            f'{tuple(text.embeds.shape)} and '
            f'{tuple(video.frames.shape)}. Make the encoders agree in '
            'embed_dim.'
        )
    ids = video.video_ids
    if ids is not None and (
        tuple(ids.shape) != (len(video),) or ids.dtype is not torch.int64
    ):
        return (
            'video_ids must be one int64 a video, shape '
            f'({len(video)},), but are {ids.dtype} of shape '
            f'{tuple(ids.shape)}.'
        )
    for side, feats in (('text', text.embeds), ('video', video.frames)):
        wrong = (~feats.isfinite()).flatten(1).any(dim=1)
        if bool(wrong.any()):
            return (
                f'The {side} features of {int(wrong.sum())} of '
                f'{len(wrong)} items in the batch are not finite, the '
                f'first at position {int(wrong.nonzero()[0])}. Lower the '
                'learning rate, or train without half precision.'
            )
    return None
