"""Names of CLIP in the releases, OpenAI's, and in our encoders."""

from __future__ import annotations

import re
from collections.abc import Collection

CLIP_SCALE = 'clip.logit_scale'
#: Release names of the two towers, and ours; a pattern fits the whole name.
CLIP_RULES = (
    (r'clip\.visual\.(.+)', r'video_encoder.tower.\1'),
    (
        r'clip\.((?:transformer|token_embedding|ln_final)\..+'
        r'|positional_embedding|text_projection)',
        r'text_encoder.tower.\1',
    ),
)
#: Parameters of a residual block, below its number.
BLOCK_PARTS = (
    'attn.in_proj_weight',
    'attn.in_proj_bias',
    *(
        f'{layer}.{kind}'
        for layer in (
            'attn.out_proj',
            'ln_1',
            'ln_2',
            'mlp.c_fc',
            'mlp.c_proj',
        )
        for kind in ('weight', 'bias')
    ),
)
_TEXT = ('positional_embedding', 'text_projection', 'token_embedding.weight')
_VISION = ('class_embedding', 'positional_embedding', 'proj', 'conv1.weight')


def block_names(prefix: str, count: int) -> list[str]:
    """Name the parameters of residual blocks.

    Args:
        prefix (str): Of the transformer, such as ``'clip.transformer'``.
        count (int): Blocks.

    Returns:
        list[str]: Names as OpenAI's CLIP and its descendants have them.
    """
    return [
        f'{prefix}.resblocks.{place}.{part}'
        for place in range(count)
        for part in BLOCK_PARTS
    ]


def count_blocks(prefix: str, names: Collection[str]) -> int:
    """Count the residual blocks that some names speak of."""
    pattern = re.compile(re.escape(prefix) + r'\.resblocks\.(\d+)\.')
    places = [int(m[1]) for name in names if (m := pattern.match(name))]
    return max(places, default=-1) + 1


def clip_names(names: Collection[str]) -> list[str]:
    """Name all parameters of the CLIP model that a checkpoint holds.

    Args:
        names (Collection[str]): Of the checkpoint, below ``clip.``; they
            tell the number of blocks, at least one a tower.

    Returns:
        list[str]: What a complete model has.
    """
    norms = ('ln_final', 'visual.ln_pre', 'visual.ln_post')
    expected = [f'clip.{name}' for name in (*_TEXT, 'logit_scale')]
    expected += [f'clip.visual.{name}' for name in _VISION]
    expected += [
        f'clip.{norm}.{k}' for norm in norms for k in ('weight', 'bias')
    ]
    for tower in ('clip.transformer', 'clip.visual.transformer'):
        expected += block_names(tower, max(1, count_blocks(tower, names)))
    return expected


def rename_clip(name: str) -> str | None:
    """Give a parameter of the two towers our name.

    Args:
        name (str): Of a complete CLIP model, below ``clip.``.

    Returns:
        str or None: None if it belongs to no tower.
    """
    for pattern, target in CLIP_RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target)
    return None
