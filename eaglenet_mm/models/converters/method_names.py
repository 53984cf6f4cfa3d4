"""Names of the parameters of other methods' releases, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Rules = Sequence[tuple[str, str | None]]

_POOLING: Rules = (
    (r'pool_frames\.cross_attn\.q_proj\.', 'pooling.query.'),
    (r'pool_frames\.cross_attn\.k_proj\.', 'pooling.key.'),
    (r'pool_frames\.cross_attn\.v_proj\.', 'pooling.value.'),
    (r'pool_frames\.cross_attn\.out_proj\.', 'pooling.output.'),
    (r'pool_frames\.linear_proj\.', 'pooling.linear.'),
    (r'pool_frames\.layer_norm([123])\.', r'pooling.norm\1.'),
)


def _blocks(theirs: str, ours: str) -> Rules:
    """Rules for residual blocks."""
    block = theirs + r'\.resblocks\.(\d+)\.'
    return (
        (block + r'attn\.in_proj_', rf'{ours}.\1.qkv.'),
        (block + r'attn\.out_proj\.', rf'{ours}.\1.output.'),
        (block + r'ln_([12])\.', rf'{ours}.\1.norm\2.'),
        (block + r'mlp\.c_fc\.', rf'{ours}.\1.hidden.'),
        (block + r'mlp\.c_proj\.', rf'{ours}.\1.shrink.'),
    )


_TEMPORAL: Rules = (
    (r'frame_position_embeddings\.', 'temporal.positions.'),
    *_blocks('transformerClip', 'temporal.blocks'),
)
_LSTM: Rules = (
    (r'frame_position_embeddings\.', None),
    (r'lstm_visual\.', 'temporal.lstm.'),
)
_WORD_WEIGHTS: Rules = (
    (r'(text|video)_weight_fc\.(\d+)\.', r'\1_weight.\2.'),
    (r'(text|video)_weight_fc\.(weight|bias)', r'\1_weight.0.\2'),
)
_DIRECTOR = r'text_proxy\.proxy_decoder\.event_decoder\.'

#: Names of the head's parameters, by method; None for what is not used.
HEAD_RULES: dict[str, Rules] = {
    'x_pool': _POOLING,
    't_mass': (
        *_POOLING,
        (r'stochastic\.std_branch\.linear_proj\.', 'stochastic_text.radius.'),
        (r'stochastic\.std_branch\.learnable_scalar', None),
    ),
    'clip4clip_mean': (),
    'clip4clip_lstm': _LSTM,
    'clip4clip_transformer': _TEMPORAL,
    'clip4clip_tight': (
        (r'cross\.embeddings\.position_embeddings\.', 'positions.'),
        *_blocks(r'cross\.transformer', 'blocks'),
        (r'cross\.pooler\.ln_pool\.', 'norm.'),
        (r'cross\.pooler\.dense\.', 'pooler.'),
        (r'similarity_dense\.', 'similarity.'),
    ),
    'ts2_net': (
        *_TEMPORAL,
        (
            r'visual_token_selector\.score_predictor\.in_conv\.0\.',
            'selector.norm.',
        ),
        (
            r'visual_token_selector\.score_predictor\.in_conv\.1\.',
            'selector.inner.',
        ),
        (
            r'visual_token_selector\.score_predictor\.out_conv\.0\.',
            'selector.outer.',
        ),
        (
            r'visual_token_selector\.score_predictor\.out_conv\.2\.',
            'selector.score.',
        ),
        (r'visual_prompt_encoder\.', None),
        (r'text_token_selector\.', None),
    ),
    'wti': (*_TEMPORAL, *_WORD_WEIGHTS),
    'wti_lstm': (*_LSTM, *_WORD_WEIGHTS),
    'text_proxy': (
        (_DIRECTOR + r'layers\.0\.multihead_attn\.in_proj_', 'layer1.qkv.'),
        (_DIRECTOR + r'layers\.1\.multihead_attn\.in_proj_', 'layer2.qkv.'),
        (
            _DIRECTOR + r'layers\.0\.multihead_attn\.out_proj\.',
            'layer1.output.',
        ),
        (
            _DIRECTOR + r'layers\.1\.multihead_attn\.out_proj\.',
            'layer2.output.',
        ),
        (_DIRECTOR + r'layers\.0\.', 'layer1.'),
        (_DIRECTOR + r'layers\.1\.', 'layer2.'),
        (_DIRECTOR + r'norm\.', 'norm.'),
        (r'text_proxy\.dash_factor', 'theta'),
        (r'text_proxy\.dash_weights\.', 'dash.'),
    ),
}


def rename_head(
    method: str, weights: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Give the weights of a released head our names.

    Args:
        method (str): A key of :data:`HEAD_RULES`.
        weights (Mapping): Released names and values.

    Returns:
        tuple[dict, list[str]]: Values by our names, relative to the head, and
        the names that no rule knows.
    """
    renamed: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in weights.items():
        for pattern, target in HEAD_RULES[method]:
            match = re.match(pattern, name)
            if match is None:
                continue
            if target is not None:
                renamed[match.expand(target) + name[match.end() :]] = value
            break
        else:
            unknown.append(name)
    return renamed, unknown
