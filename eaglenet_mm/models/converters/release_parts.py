"""What a complete released head has, and what it never uses."""

from __future__ import annotations

import re
from collections.abc import Collection

from .clip_names import block_names, count_blocks

POSITIONS = 'frame_position_embeddings.weight'
TEMPORAL = 'transformerClip'
CROSS_POSITIONS = 'cross.embeddings.position_embeddings.weight'
CROSS = 'cross.transformer'
#: Blocks of the published temporal and cross transformers.
NUM_BLOCKS = 4

_KINDS = ('weight', 'bias')
_POOLING = [
    f'pool_frames.{layer}.{kind}'
    for layer in (
        *(f'cross_attn.{part}_proj' for part in ('q', 'k', 'v', 'out')),
        'linear_proj',
        *(f'layer_norm{place}' for place in (1, 2, 3)),
    )
    for kind in _KINDS
]
_RADIUS = [f'stochastic.std_branch.linear_proj.{kind}' for kind in _KINDS]
_LSTM = [
    f'lstm_visual.{kind}_{side}_l0' for kind in _KINDS for side in ('ih', 'hh')
]
_POOLER = [
    f'{layer}.{kind}'
    for layer in (
        'cross.pooler.ln_pool',
        'cross.pooler.dense',
        'similarity_dense',
    )
    for kind in _KINDS
]
_SELECTOR = [
    f'visual_token_selector.score_predictor.{part}'
    for part in (
        'in_conv.0.weight',
        'in_conv.0.bias',
        'in_conv.1.weight',
        'out_conv.0.weight',
        'out_conv.2.weight',
    )
]

#: Reasons for what is left out, by patterns that fit the whole name.
UNUSED = (
    (
        r'clip\.(input_resolution|context_length|vocab_size)',
        'a size, which the config states',
    ),
    (r'clip\..*\battn_mask', 'the causal mask, which is computed'),
    (
        r'stochastic\.std_branch\.learnable_scalar',
        'never read by the release, holds uninitialised memory',
    ),
    (
        r'(visual_prompt_encoder|text_token_selector)\..+',
        'never read by the release',
    ),
)
UNUSED_POSITIONS = 'position table that seqLSTM makes and never reads'


def has_lstm(names: Collection[str]) -> bool:
    """Tell whether a checkpoint has an LSTM over frames."""
    return any(name.startswith('lstm_visual.') for name in names)


def reason_unused(name: str, with_lstm: bool) -> str | None:
    """Say why a parameter is left out.

    Args:
        name (str): Of the release.
        with_lstm (bool): Whether the checkpoint has an LSTM over frames.

    Returns:
        str or None: None if it is used, or unknown.
    """
    if with_lstm and name == POSITIONS:
        return UNUSED_POSITIONS
    for pattern, reason in UNUSED:
        if re.fullmatch(pattern, name):
            return reason
    return None


def head_names(method: str, names: Collection[str]) -> list[str]:
    """Name all parameters of a released head.

    Args:
        method (str): A key of :data:`~.release_methods.METHODS`.
        names (Collection[str]): Of the checkpoint; they tell how many blocks
            and layers there are, and which optional parts.

    Returns:
        list[str]: What a complete head has.
    """
    temporal = [
        POSITIONS,
        *block_names(TEMPORAL, count_blocks(TEMPORAL, names) or NUM_BLOCKS),
    ]
    if method == 'wti':
        expected = _word_weights(names)
        if has_lstm(names):
            return expected + _LSTM
        has_temporal = POSITIONS in names or count_blocks(TEMPORAL, names)
        return expected + (temporal if has_temporal else [])
    cross = block_names(CROSS, count_blocks(CROSS, names) or NUM_BLOCKS)
    parts: dict[str, list[str]] = {
        'x_pool': _POOLING,
        't_mass': _POOLING + _RADIUS,
        'clip4clip_mean': [],
        'clip4clip_lstm': _LSTM,
        'clip4clip_transformer': temporal,
        'clip4clip_tight': [CROSS_POSITIONS, *cross, *_POOLER],
        'ts2_net': temporal + _SELECTOR,
    }
    return parts[method]


def _word_weights(names: Collection[str]) -> list[str]:
    """Name the layers that weigh words and frames: none, 1, 2 or 3."""
    pattern = re.compile(
        r'(?:text|video)_weight_fc\.(?:(\d)\.)?(?:weight|bias)'
    )
    found = [match[1] for name in names if (match := pattern.fullmatch(name))]
    if not found:
        return []
    layers = [''] if None in found else []
    last = max((int(place) for place in found if place), default=-1)
    layers += [f'.{place}' for place in range(0, last + 1, 2)]
    return [
        f'{side}_weight_fc{layer}.{kind}'
        for side in ('text', 'video')
        for layer in layers
        for kind in _KINDS
    ]
