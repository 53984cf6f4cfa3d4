"""Weights of our head under the names of the authors' release."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from eaglenet_mm.models.heads import EagleNetHead

RELATIONS = ('text_text', 'frame_frame', 'frame_text')
#: Our prefix of each of theirs; behind it comes ``weight`` or ``bias``.
PREFIXES = {
    'stochastic.std_branch.linear_proj': 'stochastic_text.radius',
    'pool_frames.cross_attn.q_proj': 'pooling.query',
    'pool_frames.cross_attn.k_proj': 'pooling.key',
    'pool_frames.cross_attn.v_proj': 'pooling.value',
    'pool_frames.cross_attn.out_proj': 'pooling.output',
    'pool_frames.linear_proj': 'pooling.linear',
    'pool_frames.layer_norm1': 'pooling.norm1',
    'pool_frames.layer_norm2': 'pooling.norm2',
    'pool_frames.layer_norm3': 'pooling.norm3',
    'ebm.energy_net.0': 'loss_energy.energy.hidden',
    'ebm.energy_net.2': 'loss_energy.energy.output',
    'ebm.energy_net': 'loss_energy.energy.transform',
}


def graph_layers(head: EagleNetHead) -> int:
    """Count the layers of the head's graph, the last included."""
    hidden = {
        match[1]
        for name in head.state_dict()
        if (match := re.match(r'graph\.hidden\.(\d+)\.', name))
    }
    return len(hidden) + 1


def is_relational(head: EagleNetHead) -> bool:
    """Tell the relational graph from the plain one."""
    return type(head.graph).__name__ != 'PlainGraph'


def release_names(head: EagleNetHead) -> dict[str, str]:
    """Our parameter behind each name of the release.

    Names of the release that reach no result are left out: relations 0 and 1
    and the self projection of the last graph layer. Losses are included.
    """
    names = {
        f'{theirs}.{leaf}': f'{ours}.{leaf}'
        for theirs, ours in PREFIXES.items()
        for leaf in ('weight', 'bias')
    }
    names['frame_pe'] = 'frame_embedding'
    names['loss_fct.bias'] = 'loss_match.bias'
    is_nce = type(head.loss_match).__name__ == 'InfoNCELoss'
    scale = 'clip.logit_scale' if is_nce else 'loss_fct.temp_prior'
    names[scale] = 'loss_match.log_scale'
    layers = graph_layers(head)
    for index in range(layers):
        last = index == layers - 1
        ours = 'graph.last' if last else f'graph.hidden.{index}'
        # with one layer the release uses the second of its two
        theirs = f'gnn.layers.{max(index, 1) if last else index}'
        names.update(_layer_names(ours, theirs, last, is_relational(head)))
    own = head.state_dict()
    return {theirs: ours for theirs, ours in names.items() if ours in own}


def _layer_names(
    ours: str, theirs: str, last: bool, relational: bool
) -> dict[str, str]:
    """Names of one graph layer."""
    if not relational:
        return {
            f'{theirs}.lin1.weight': f'{ours}.project.weight',
            f'{theirs}.att_l.weight': f'{ours}.left',
            f'{theirs}.att_r.weight': f'{ours}.right',
        }
    names = {} if last else {f'{theirs}.lin_out.weight': _self_project(ours)}
    for relation, name in enumerate(RELATIONS):
        if last and name != 'frame_text':
            continue
        source = ours if last else f'{ours}.{name}'
        for part, own in (
            ('lin_rels', 'project.weight'),
            ('att_l_rels', 'left'),
            ('att_r_rels', 'right'),
        ):
            names[f'{theirs}.{part}.{relation}.weight'] = f'{source}.{own}'
    return names


def _self_project(ours: str) -> str:
    return f'{ours}.self_project.weight'


def release_weights(head: EagleNetHead) -> dict[str, Tensor]:
    """Give the head's weights under the release's names.

    Args:
        head (EagleNetHead): The head.

    Returns:
        dict[str, Tensor]: Everything ``brute_force.score_pairs`` and
        ``energy_pairs`` read, and temperature and bias of ``loss_match``.
        What the release computes and drops in its last layer has the
        weights of relation 2, and zeros as its self projection.
    """
    state = head.state_dict()
    weights = {
        theirs: state[ours][None] if '.att_' in theirs else state[ours]
        for theirs, ours in release_names(head).items()
    }
    if is_relational(head):
        prefix = f'gnn.layers.{max(graph_layers(head) - 1, 1)}'
        for part in ('lin_rels', 'att_l_rels', 'att_r_rels'):
            used = weights[f'{prefix}.{part}.2.weight']
            for relation in (0, 1):
                weights[f'{prefix}.{part}.{relation}.weight'] = used
        width = weights[f'{prefix}.lin_rels.2.weight'].shape[1]
        weights[f'{prefix}.lin_out.weight'] = torch.zeros_like(
            weights[f'{prefix}.lin_rels.2.weight'][:width]
        )
    return weights
