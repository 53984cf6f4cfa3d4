import dataclasses

import pytest
import torch

from eaglenet_mm.models.converters import ReleaseOptions
from eaglenet_mm.models.converters.eaglenet_release_names import (
    Action,
    rename,
)

OPTIONS = ReleaseOptions(
    embed_dim=16,
    num_frames=3,
    max_words=6,
    graph_type='rgat',
    num_graph_layers=3,
    frame_embedding=True,
    loss='sig',
    energy='mlp',
    replay_size=5,
)
GAT = dataclasses.replace(OPTIONS, graph_type='gat')


@pytest.mark.parametrize(
    ('options', 'name', 'ours'),
    [
        (OPTIONS, 'lin_rels.0', 'hidden.1.text_text.project.weight'),
        (OPTIONS, 'att_l_rels.1', 'hidden.1.frame_frame.left'),
        (OPTIONS, 'att_r_rels.2', 'hidden.1.frame_text.right'),
        (OPTIONS, 'lin_out', 'hidden.1.self_project.weight'),
        (GAT, 'lin1', 'hidden.1.project.weight'),
        (GAT, 'att_l', 'hidden.1.left'),
    ],
)
def test_graph_names(options, name, ours):
    action = rename(f'gnn.layers.1.{name}.weight', options)
    assert action.target == f'head.graph.{ours}'
    assert action.squeeze is name.startswith('att')


@pytest.mark.parametrize(
    ('options', 'name', 'ours'),
    [
        (OPTIONS, 'lin_rels.2', 'project.weight'),
        (OPTIONS, 'att_l_rels.2', 'left'),
        (GAT, 'lin1', 'project.weight'),
        (GAT, 'att_r', 'right'),
    ],
)
def test_names_of_the_last_layer(options, name, ours):
    action = rename(f'gnn.layers.2.{name}.weight', options)
    assert action.target == f'head.graph.last.{ours}'


@pytest.mark.parametrize('name', ['lin_rels.0', 'att_r_rels.1', 'lin_out'])
def test_unused_parts_of_the_last_layer(name):
    action = rename(f'gnn.layers.2.{name}.weight', OPTIONS)
    assert action.target is None
    assert 'only the frame-text logits' in action.reason


@pytest.mark.parametrize(
    'name',
    [
        'gnn.layers.0.lin1.weight',
        'gnn.layers.0.lin_rels.0.bias',
        'gnn.weight',
        'pool_frames.cross_attn.x_proj.weight',
        'clip.pooling.weight',
        'frame_pe_2',
    ],
)
def test_unknown_names(name):
    assert rename(name, OPTIONS) is None


def test_transform():
    value = torch.arange(6.0).view(1, 6)
    assert torch.equal(Action(squeeze=True).transform(value), value[0])
    rows = torch.arange(6.0)
    assert Action(num_rows=2).transform(rows).tolist() == [0, 1]
    scalar = torch.tensor(4.6)
    assert Action().transform(scalar) is scalar
