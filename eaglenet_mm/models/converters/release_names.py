"""Released methods, and the mapping of their parameter names to ours."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TOOLS = 'tools/model_converters'
CLIP_SCALE = 'clip.logit_scale'
LOG_SCALE = 'head.loss_match.log_scale'
#: Number of blocks of the published temporal and cross transformers.
NUM_BLOCKS = 4


@dataclass(frozen=True)
class Method:
    """A method whose released checkpoints can be converted."""

    title: str
    #: Class name of the head.
    head: str


#: Methods by the name that the conversion script takes.
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
EAGLENET = Method('EagleNet', 'EagleNetHead')
#: Patterns that identify each kind of checkpoint. The first match counts,
#: since derived methods contain the names of others.
MARKS = {
    'ours': r'(text|video)_encoder\.|head\.',
    'eaglenet': r'gnn\.|ebm\.|loss_fct\.temp_prior',
    'tv_proxynet': r'text_proxy\.|clipmodel\.',
    'mmaction2_transformer': r'adapter\.',
    't_mass': r'stochastic\.',
    'x_pool': r'pool_frames\.',
    'ts2_net': r'visual_token_selector\.',
    'wti': r'(text|video)_weight_fc\.',
    'clip4clip_tight': r'cross\.|similarity_dense\.',
    'clip4clip_lstm': r'lstm_visual\.',
    'clip4clip_transformer': r'transformerClip\.|frame_position_embeddings',
    'clip4clip_mean': r'clip\.(visual|vision_model)\.',
}
#: Checkpoints that are converted elsewhere or not at all.
ELSEWHERE = {
    'ours': (
        'already a checkpoint of eaglenet_mm; use it with tools/test.py and '
        'the config it was trained with'
    ),
    'eaglenet': (
        f'a checkpoint of the EagleNet release; run {TOOLS}/'
        'eaglenet_release.py on it instead'
    ),
    'tv_proxynet': (
        'a checkpoint of TV-ProxyNet, which uses the video tokens of '
        "CLIP-ViP's encoder, which is not available here; train a config of "
        'TextProxyHead instead'
    ),
    # epsilon, mask and mean change the scores, but not names or shapes
    'mmaction2_transformer': (
        "a checkpoint of mmaction2's CLIP4Clip with TransformerAdapter, which "
        'differs from seqTransf: norms have an epsilon of 1e-5 instead of '
        '1e-12, frames are not masked, and not normalised before the mean. No '
        'head here gives its scores; test it with mmaction2, or train a '
        'config of MeanPoolingHead with TemporalTransformer'
    ),
}


def recognise(names: Collection[str]) -> str | None:
    """Identify the kind of a checkpoint, a key of MARKS, by its names.

    CLIP itself is ``'clip4clip_mean'``, which has the same names.
    """
    for kind, mark in MARKS.items():
        if any(re.match(mark, name) for name in names):
            return kind
    return None


def describe(kind: str) -> str:
    """Describe a kind of checkpoint and how to convert it."""
    if kind in ELSEWHERE:
        return ELSEWHERE[kind]
    method = METHODS[kind]
    title = method.title
    if kind == 'clip4clip_mean':
        title = f'{title}, or of CLIP itself'
    elif kind == 'clip4clip_transformer':
        title = f'{title}, or of DRL without token weights (ti, dp)'
    return (
        f'a checkpoint of {title}; run {TOOLS}/baseline_release.py {kind} on '
        f'it instead, with a config of {method.head}'
    )


# -- tables of released names and ours --------------------------------------


def layers(table: str) -> dict[str, str]:
    """Weights and biases of layers, given as lines of their name and ours."""
    return {
        f'{theirs}.{kind}': f'{ours}.{kind}'
        for theirs, ours in map(str.split, table.strip().splitlines())
        for kind in ('weight', 'bias')
    }


#: Parameters of a residual block as named by OpenAI.
BLOCK = {
    'attn.in_proj_weight': 'qkv.weight',
    'attn.in_proj_bias': 'qkv.bias',
    **layers("""
        attn.out_proj  output
        ln_1           norm1
        ln_2           norm2
        mlp.c_fc       hidden
        mlp.c_proj     shrink
    """),
}
#: Parameters of CLIP's towers outside the blocks.
TEXT_TOWER = (
    *('positional_embedding', 'text_projection', 'token_embedding.weight'),
    *('ln_final.weight', 'ln_final.bias'),
)
IMAGE_TOWER = (
    *('positional_embedding', 'class_embedding', 'conv1.weight', 'proj'),
    *('ln_pre.weight', 'ln_pre.bias', 'ln_post.weight', 'ln_post.bias'),
)
POSITIONS = 'frame_position_embeddings.weight'
TEMPORAL = 'transformerClip'
CROSS_POSITIONS = 'cross.embeddings.position_embeddings.weight'
CROSS = 'cross.transformer'
_POOLING = layers("""
    pool_frames.cross_attn.q_proj    pooling.query
    pool_frames.cross_attn.k_proj    pooling.key
    pool_frames.cross_attn.v_proj    pooling.value
    pool_frames.cross_attn.out_proj  pooling.output
    pool_frames.linear_proj          pooling.linear
    pool_frames.layer_norm1          pooling.norm1
    pool_frames.layer_norm2          pooling.norm2
    pool_frames.layer_norm3          pooling.norm3
""")
_RADIUS = layers('stochastic.std_branch.linear_proj stochastic_text.radius')
_LSTM = {
    f'lstm_visual.{name}': f'temporal.lstm.{name}'
    for name in ('weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0')
}
_TIGHT = layers("""
    cross.pooler.ln_pool  norm
    cross.pooler.dense    pooler
    similarity_dense      similarity
""")
_SELECTOR = {
    f'visual_token_selector.score_predictor.{theirs}': f'selector.{ours}'
    for theirs, ours in {
        'in_conv.0.weight': 'norm.weight',
        'in_conv.0.bias': 'norm.bias',
        'in_conv.1.weight': 'inner.weight',
        'out_conv.0.weight': 'outer.weight',
        'out_conv.2.weight': 'score.weight',
    }.items()
}
_ENERGY = {
    'mlp': layers("""
        ebm.energy_net.0  loss_energy.energy.hidden
        ebm.energy_net.2  loss_energy.energy.output
    """),
    'bilinear': layers('ebm.energy_net loss_energy.energy.transform'),
}
#: Optional parameters of EagleNet.
_OPTIONAL = {
    'frame_pe': 'frame_embedding',
    'loss_fct.temp_prior': 'loss_match.log_scale',
    'loss_fct.bias': 'loss_match.bias',
    'ebm.replay_buffer_vid': 'loss_energy.sampler.replay_video',
    'ebm.replay_buffer_txt': 'loss_energy.sampler.replay_text',
}


def count_blocks(prefix: str, names: Collection[str]) -> int:
    """Number of residual blocks below a prefix."""
    pattern = re.compile(re.escape(prefix) + r'\.resblocks\.(\d+)\.')
    places = [int(m[1]) for name in names if (m := pattern.match(name))]
    return max(places, default=-1) + 1


def clip_table(names: Collection[str]) -> dict[str, str]:
    """Our names of a complete CLIP, with the checkpoint's number of blocks."""
    table = {CLIP_SCALE: LOG_SCALE}
    for theirs, ours, parts in (
        ('clip.', 'text_encoder', TEXT_TOWER),
        ('clip.visual.', 'video_encoder', IMAGE_TOWER),
    ):
        count = max(1, count_blocks(f'{theirs}transformer', names))
        blocks = (
            f'transformer.resblocks.{place}.{part}'
            for place in range(count)
            for part in BLOCK
        )
        for name in (*parts, *blocks):
            table[theirs + name] = f'{ours}.tower.{name}'
    return table


def head_table(method: str, names: Collection[str]) -> dict[str, str]:
    """Our names, without ``head.``, of the complete head of a method.

    The number of blocks and optional parts depend on the checkpoint's names.
    """

    def temporal() -> dict[str, str]:
        blocks = _blocks(TEMPORAL, 'temporal.blocks', names)
        return {POSITIONS: 'temporal.positions.weight', **blocks}

    if method == 'wti':
        table = _word_weights(names)
        if has_lstm(names):
            return table | _LSTM
        has_temporal = POSITIONS in names or count_blocks(TEMPORAL, names)
        return table | temporal() if has_temporal else table
    return {
        'x_pool': _POOLING,
        't_mass': _POOLING | _RADIUS,
        'clip4clip_mean': {},
        'clip4clip_lstm': _LSTM,
        'clip4clip_transformer': temporal(),
        'clip4clip_tight': {
            CROSS_POSITIONS: 'positions.weight',
            **_blocks(CROSS, 'blocks', names),
            **_TIGHT,
        },
        'ts2_net': temporal() | _SELECTOR,
    }[method]


def _blocks(theirs: str, ours: str, names: Collection[str]) -> dict[str, str]:
    return {
        f'{theirs}.resblocks.{place}.{part}': f'{ours}.{place}.{name}'
        for place in range(count_blocks(theirs, names) or NUM_BLOCKS)
        for part, name in BLOCK.items()
    }


def has_lstm(names: Collection[str]) -> bool:
    """Whether a checkpoint has an LSTM over the frames."""
    return any(name.startswith('lstm_visual.') for name in names)


def _word_weights(names: Collection[str]) -> dict[str, str]:
    """Names of the 0 to 3 layers that weight words and frames."""
    pattern = r'(?:text|video)_weight_fc\.(?:(\d)\.)?(?:weight|bias)'
    found = [m[1] for name in names if (m := re.fullmatch(pattern, name))]
    last = max((int(place) for place in found if place), default=-1)
    places = {f'.{place}': place for place in range(0, last + 1, 2)}
    if None in found:  # a single layer has no number
        places[''] = 0
    return layers(
        '\n'.join(
            f'{side}_weight_fc{theirs} {side}_weight.{ours}'
            for side in ('text', 'video')
            for theirs, ours in places.items()
        )
    )


@dataclass(frozen=True)
class ReleaseOptions:
    """EagleNet options inferred from a release checkpoint.

    Args:
        embed_dim (int): Feature width.
        num_frames (int): Frames per video.
        max_words (int): Number of text position embeddings to keep.
        graph_type (str): ``'rgat'`` or ``'gat'``, of either version.
        num_graph_layers (int): Layers of the graph.
        frame_embedding (bool): Whether there is a frame embedding.
        loss (str): ``'sig'`` or ``'clip'``.
        energy (str, optional): ``'mlp'``, ``'bilinear'`` or ``'cossim'``;
            None without energy loss.
        replay_size (int, optional): Capacity of the replay buffer; None
            without energy loss.

    Example:
        >>> options = ReleaseOptions(512, 12, 32, 'rgat', 2, True, 'sig',
        ...                          energy='mlp', replay_size=64)
        >>> options.graph_type
        'rgat'
    """

    embed_dim: int
    num_frames: int
    max_words: int
    graph_type: str
    num_graph_layers: int
    frame_embedding: bool
    loss: str
    energy: str | None
    replay_size: int | None


def eaglenet_table(
    options: ReleaseOptions, names: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Our names of EagleNet's head, without ``head.``, and unused names.

    The second dict holds the reason why each name is unused.
    """
    used = _POOLING | _RADIUS | _ENERGY.get(options.energy or '', {})
    used |= {theirs: n for theirs, n in _OPTIONAL.items() if theirs in names}
    unused = {}
    if options.loss == 'sig':
        unused[CLIP_SCALE] = (
            "CLIP's temperature, which the sigmoid loss does not use"
        )
    relations = {'.0': 'text_text', '.1': 'frame_frame', '.2': 'frame_text'}
    stem = '_rels'
    parts = {'lin': 'project.weight', 'att_l': 'left', 'att_r': 'right'}
    if options.graph_type == 'gat':
        relations, stem = {'': ''}, ''
        parts['lin1'] = parts.pop('lin')
    stored = max(options.num_graph_layers, 2)  # the release stores 2 for 1
    for layer in range(stored):
        theirs = f'gnn.layers.{layer}.'
        is_last = layer == stored - 1
        ours = 'graph.last.' if is_last else f'graph.hidden.{layer}.'
        table = {
            f'{theirs}{part}{stem}{place}.weight': (
                f'{ours}{relation}.{name}'
                if relation and not is_last
                else f'{ours}{name}'
            )
            for place, relation in relations.items()
            for part, name in parts.items()
        }
        if relations != {'': ''}:
            table[f'{theirs}lin_out.weight'] = f'{ours}self_project.weight'
        for name, target in table.items():
            if layer == 0 and options.num_graph_layers == 1:
                unused[name] = (
                    'layer 0, which the release skips when num_layers is 1'
                )
            elif is_last and re.search(r'lin_out|\.[01]\.weight$', name):
                unused[name] = (
                    'last graph layer: only the frame-text logits are used'
                )
            else:
                used[name] = target
    return used, unused


#: Reasons for dropping parameters, by a pattern of the whole name.
_UNUSED = {
    r'clip\.(input_resolution|context_length|vocab_size)': (
        'a size, which the config states'
    ),
    r'clip\..*\battn_mask': 'the causal mask, which is computed',
    r'clip\.(text|vision)_model\.embeddings\.position_ids': (
        'the numbers 0, 1, 2, ..., which are not learnt'
    ),
    r'stochastic\.std_branch\.learnable_scalar': (
        'never read by the release, holds uninitialised memory'
    ),
    r'(visual_prompt_encoder|text_token_selector)\..+': (
        'never read by the release'
    ),
}


def reason_unused(
    method: str, name: str, names: Collection[str]
) -> str | None:
    """Why a parameter is dropped; None if it is used or unknown."""
    if method == 'eaglenet' and re.match(f'{TEMPORAL}\\.|{POSITIONS}$', name):
        return 'of a temporal transformer that the release never runs'
    if name == POSITIONS and has_lstm(names):
        return 'position embeddings that seqLSTM creates but never uses'
    if name == CLIP_SCALE and method == 'clip4clip_tight':
        return "CLIP's temperature, which tightTransf does not use"
    matching = (k for k in _UNUSED if re.fullmatch(k, name))
    return _UNUSED.get(next(matching, ''))
