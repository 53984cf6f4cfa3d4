"""The table from the EagleNet release's parameter names to ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from .clip_names import CLIP_RULES

#: Names whose place depends on nothing else; the first match counts.
RENAMED = (
    # The shift wrapper of the release adds '.net' in the last two blocks.
    (
        r'clip\.visual\.(.+)\.attn\.net\.(.+)',
        r'video_encoder.tower.\1.attn.\2',
    ),
    *CLIP_RULES,
    (r'frame_pe', 'head.frame_embedding'),
    (r'loss_fct\.temp_prior', 'head.loss_match.log_scale'),
    (r'loss_fct\.bias', 'head.loss_match.bias'),
    (
        r'stochastic\.std_branch\.linear_proj\.(weight|bias)',
        r'head.stochastic_text.radius.\1',
    ),
    (
        r'pool_frames\.linear_proj\.(weight|bias)',
        r'head.pooling.linear.\1',
    ),
    (
        r'pool_frames\.layer_norm([123])\.(weight|bias)',
        r'head.pooling.norm\1.\2',
    ),
    (
        r'ebm\.energy_net\.0\.(weight|bias)',
        r'head.loss_energy.energy.hidden.\1',
    ),
    (
        r'ebm\.energy_net\.2\.(weight|bias)',
        r'head.loss_energy.energy.output.\1',
    ),
    (
        r'ebm\.energy_net\.(weight|bias)',
        r'head.loss_energy.energy.transform.\1',
    ),
    (r'ebm\.replay_buffer_vid', 'head.loss_energy.sampler.replay_video'),
    (r'ebm\.replay_buffer_txt', 'head.loss_energy.sampler.replay_text'),
)
POOLING_PROJECTIONS = {'q': 'query', 'k': 'key', 'v': 'value', 'out': 'output'}
RELATIONS = ('text_text', 'frame_frame', 'frame_text')

DROPPED = (
    (
        r'frame_position_embeddings\.weight',
        'position table of a temporal transformer that the release never runs',
    ),
    (
        r'transformerClip\..+',
        'temporal transformer that the release never runs',
    ),
    (
        r'stochastic\.std_branch\.learnable_scalar',
        'never read by the release, holds uninitialised memory',
    ),
)
UNUSED_LAYER = 'layer 0, which the release skips when num_layers is 1'
UNUSED_RELATION = 'last graph layer: only the frame-text logits are used'
UNUSED_SCALE = "CLIP's temperature, which the sigmoid loss does not use"


@dataclass(frozen=True)
class ReleaseOptions:
    """What names and shapes of a checkpoint say of its model.

    Args:
        embed_dim (int): Width of the features.
        num_frames (int): Frames of a video.
        max_words (int): Rows kept of the text tower's positional table.
        graph_type (str): ``'rgat'`` or ``'gat'``; its two versions have the
            same names.
        num_graph_layers (int): Layers of the graph.
        frame_embedding (bool): Whether there is a frame embedding.
        loss (str): ``'sig'`` or ``'clip'``.
        energy (str, optional): ``'mlp'``, ``'bilinear'`` or ``'cossim'``;
            None without energy loss.
        replay_size (int, optional): Entries of the replay buffer; None
            without energy loss.
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


@dataclass(frozen=True)
class Action:
    """What becomes of one parameter.

    Args:
        target (str, optional): Our name; None if it is dropped.
        reason (str): Why it is dropped.
        num_rows (int, optional): Rows kept of it; all by default.
        squeeze (bool): Whether its first axis, of length 1, is removed.
    """

    target: str | None = None
    reason: str = ''
    num_rows: int | None = None
    squeeze: bool = False

    def transform(self, value: Tensor) -> Tensor:
        """Cut and reshape the release's tensor to ours."""
        if self.num_rows is not None:
            value = value[: self.num_rows]
        return value.squeeze(0) if self.squeeze else value


def rename(name: str, options: ReleaseOptions) -> Action | None:
    """Say what becomes of a parameter of the release.

    Args:
        name (str): The release's name, without ``'module.'``.
        options (ReleaseOptions): Of the model.

    Returns:
        Action or None: None if the release has no such name.
    """
    for pattern, reason in DROPPED:
        if re.fullmatch(pattern, name):
            return Action(reason=reason)
    if name == 'clip.logit_scale':
        if options.loss == 'clip':
            return Action('head.loss_match.log_scale')
        return Action(reason=UNUSED_SCALE)
    if name.startswith('gnn.'):
        return _rename_graph(name, options)
    match = re.fullmatch(
        r'pool_frames\.cross_attn\.(q|k|v|out)_proj\.(weight|bias)', name
    )
    if match:
        part = POOLING_PROJECTIONS[match[1]]
        return Action(f'head.pooling.{part}.{match[2]}')
    for pattern, target in RENAMED:
        match = re.fullmatch(pattern, name)
        if match:
            is_table = name == 'clip.positional_embedding'
            return Action(
                match.expand(target),
                num_rows=options.max_words if is_table else None,
            )
    return None


def _rename_graph(name: str, options: ReleaseOptions) -> Action | None:
    """Rename a parameter of the graph, or drop what has no influence."""
    pattern = (
        r'gnn\.layers\.(\d+)\.(lin1|att_[lr])()\.weight'
        if options.graph_type == 'gat'
        else r'gnn\.layers\.(\d+)\.(lin_out|(?:lin|att_[lr])_rels)'
        r'(?:\.([012]))?\.weight'
    )
    match = re.fullmatch(pattern, name)
    if not match:
        return None
    layer, part, relation = int(match[1]), match[2], match[3]
    if options.num_graph_layers == 1 and layer == 0:
        return Action(reason=UNUSED_LAYER)
    is_last = layer == max(options.num_graph_layers - 1, 1)
    if is_last and (part == 'lin_out' or relation in ('0', '1')):
        return Action(reason=UNUSED_RELATION)
    prefix = 'head.graph.last' if is_last else f'head.graph.hidden.{layer}'
    if part == 'lin_out':
        return Action(f'{prefix}.self_project.weight')
    if relation and not is_last:
        prefix = f'{prefix}.{RELATIONS[int(relation)]}'
    if part.startswith('lin'):
        return Action(f'{prefix}.project.weight')
    side = 'left' if part.startswith('att_l') else 'right'
    return Action(f'{prefix}.{side}', squeeze=True)
