"""Transformers over frames that start as a copy of CLIP's text tower."""

from __future__ import annotations

from torch import Tensor, nn

from .clip_names import BLOCK_PARTS, count_blocks
from .release_parts import (
    CROSS,
    CROSS_POSITIONS,
    NUM_BLOCKS,
    POSITIONS,
    TEMPORAL,
    has_lstm,
)

CLIP_POSITIONS = 'clip.positional_embedding'
CLIP_TEXT = 'clip.transformer'


def fill_from_clip(
    tensors: dict[str, Tensor], method: str, model: nn.Module | None = None
) -> dict[str, str]:
    """Copy CLIP's text positions and first text blocks, as the releases do.

    Their loaders copy from OpenAI's weights; here the text tower of the same
    checkpoint is copied, which is the same for a checkpoint of CLIP. Only a
    part that is missing as a whole is filled.

    Args:
        tensors (dict[str, Tensor]): By release names; filled in place.
        method (str): A key of :data:`~.release_methods.METHODS`.
        model (nn.Module, optional): Model of the config, which tells the
            number of blocks and whether there are any. Default: None, the
            published four.

    Returns:
        dict[str, str]: Where each name that was filled was copied from.

    Raises:
        ValueError: If CLIP has fewer blocks, or another width than its
            features, which the head works on.
    """
    blocks, places = TEMPORAL, POSITIONS
    if method == 'clip4clip_tight':
        blocks, places = CROSS, CROSS_POSITIONS
    # an LSTM stands where the transformer would
    count = 0 if has_lstm(tensors) else _number_of_blocks(method, model)
    copies = {}
    if count and places not in tensors:
        copies[places] = CLIP_POSITIONS
    if count and not count_blocks(blocks, tensors):
        stored = count_blocks(CLIP_TEXT, tensors)
        if stored < count:
            raise ValueError(
                f"{count} blocks should start from CLIP's text tower, which "
                f'has {stored}. Choose fewer layers in the config.'
            )
        copies |= {
            f'{blocks}.resblocks.{place}.{part}': (
                f'{CLIP_TEXT}.resblocks.{place}.{part}'
            )
            for place in range(count)
            for part in BLOCK_PARTS
        }
    copies = {k: v for k, v in copies.items() if v in tensors}
    projection = tensors.get('clip.text_projection')
    if copies and projection is not None:
        width, features = projection.shape
        if width != features:
            raise ValueError(
                f"CLIP's text tower is {width} wide and its features "
                f'{features}, so its positions and blocks do not fit a head '
                'on the features. Train the head from random weights '
                'instead.'
            )
    for name, origin in copies.items():
        tensors[name] = tensors[origin]
    return copies


def _number_of_blocks(method: str, model: nn.Module | None) -> int:
    """Blocks of the head that CLIP has a start for."""
    if method not in (
        'clip4clip_transformer',
        'clip4clip_tight',
        'ts2_net',
        'wti',
    ):
        return 0
    if model is None:
        return NUM_BLOCKS
    blocks = (
        'head.blocks.'
        if method == 'clip4clip_tight'
        else ('head.temporal.blocks.')
    )
    places = {
        name[len(blocks) :].split('.')[0]
        for name in model.state_dict()
        if name.startswith(blocks)
    }
    return len(places)
