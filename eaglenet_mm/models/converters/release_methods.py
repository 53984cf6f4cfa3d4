"""Which method a checkpoint is of, told by its names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TOOL = 'tools/model_converters/baseline_release.py'


@dataclass(frozen=True)
class Method:
    """A method whose released checkpoints can be converted.

    Args:
        title (str): What it is called.
        head (str): Our head.
    """

    title: str
    head: str


#: By the name that the tool takes.
METHODS = {
    'x_pool': Method('X-Pool', 'XPoolHead'),
    't_mass': Method('T-MASS', 'TMASSHead'),
    'clip4clip_mean': Method('CLIP4Clip meanP', 'MeanPoolingHead'),
    'clip4clip_lstm': Method('CLIP4Clip seqLSTM', 'MeanPoolingHead'),
    'clip4clip_transformer': Method('CLIP4Clip seqTransf', 'MeanPoolingHead'),
    'clip4clip_tight': Method('CLIP4Clip tightTransf', 'CrossTransformerHead'),
    'ts2_net': Method('TS2-Net', 'TS2NetHead'),
    'wti': Method('DRL (WTI)', 'WTIHead'),
}
#: What the names of each kind of checkpoint have; the first match counts, as
#: methods that stand on others have their names too.
MARKS = (
    ('ours', r'(text|video)_encoder\.|head\.'),
    ('eaglenet', r'gnn\.|ebm\.|loss_fct\.temp_prior'),
    ('tv_proxynet', r'text_proxy\.|clipmodel\.'),
    ('mmaction2_transformer', r'adapter\.'),
    ('t_mass', r'stochastic\.'),
    ('x_pool', r'pool_frames\.'),
    ('ts2_net', r'visual_token_selector\.'),
    ('wti', r'(text|video)_weight_fc\.'),
    ('clip4clip_tight', r'cross\.|similarity_dense\.'),
    ('clip4clip_lstm', r'lstm_visual\.'),
    ('clip4clip_transformer', r'transformerClip\.|frame_position_embeddings'),
    ('clip4clip_mean', r'clip\.(visual|vision_model)\.'),
)
#: Files that this converter leaves alone, and what to do with them.
ELSEWHERE = {
    'ours': (
        'a checkpoint of eaglenet_mm already; give it to tools/test.py as it '
        'is, with the config it was trained with'
    ),
    'eaglenet': (
        'a checkpoint of the EagleNet release; run '
        'tools/model_converters/eaglenet_release.py on it instead'
    ),
    'tv_proxynet': (
        'a checkpoint of TV-ProxyNet, which stands on the encoder of '
        'CLIP-ViP, and no encoder of ours has its video tokens; train a '
        'config of TextProxyHead instead'
    ),
    # eps, mask and mean decide the scores; names and shapes hide that
    'mmaction2_transformer': (
        "a checkpoint of mmaction2's CLIP4Clip with TransformerAdapter, whose "
        'norms have an epsilon of 1e-5 (1e-12 in seqTransf), which has no '
        'frame mask, and whose mean is over frames of any length (of unit '
        'length in seqTransf), so no head of ours gives its scores; test it '
        'with mmaction2, or train a config of MeanPoolingHead with '
        'TemporalTransformer'
    ),
}


def recognise(names: Collection[str]) -> str | None:
    """Tell what a checkpoint is of.

    Args:
        names (Collection[str]): Of its parameters, without ``'module.'``.

    Returns:
        str or None: A key of :data:`METHODS` or :data:`ELSEWHERE`;
        ``'clip4clip_mean'`` also for CLIP alone, which has the same names;
        None if no mark is found.
    """
    for kind, mark in MARKS:
        if any(re.match(mark, name) for name in names):
            return kind
    return None


def describe(kind: str) -> str:
    """Say in words what a kind of checkpoint is and what to run for it."""
    if kind in ELSEWHERE:
        return ELSEWHERE[kind]
    method = METHODS[kind]
    title = method.title
    if kind == 'clip4clip_mean':
        title = f'{title}, or of CLIP alone'
    elif kind == 'clip4clip_transformer':
        title = f'{title}, or of DRL without token weights (ti, dp)'
    return (
        f'a checkpoint of {title}; run {TOOL} {kind} on it instead, with a '
        f'config of {method.head}'
    )
