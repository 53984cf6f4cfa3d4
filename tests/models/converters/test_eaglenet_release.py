import pytest
import torch

from eaglenet_mm.models.converters import (
    check_model_fit,
    convert_eaglenet_release,
)
from eaglenet_mm.registry import MODELS
from tests.models.converters.release_checkpoint import (
    EMBED_DIM,
    MAX_WORDS,
    NUM_FRAMES,
    REPLAY_SIZE,
    model_config,
    release_state_dict,
)

REPLAY = 'head.loss_energy.sampler.replay_'


@pytest.mark.parametrize('graph', ['rgat', 'gat'])
@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_fills_the_model_for_every_graph(graph, num_layers):
    variant = dict(graph=graph, num_layers=num_layers)
    ours, report = convert_eaglenet_release(
        release_state_dict(**variant),
        num_graph_layers=num_layers,
        max_words=MAX_WORDS,
    )
    assert report.options.graph_type == graph
    assert report.options.num_graph_layers == num_layers
    model = MODELS.build(model_config(**variant))
    kept = check_model_fit(ours, model)
    parameters = dict(model.named_parameters())
    assert not [name for name in kept if name in parameters]
    model.load_state_dict(ours, strict=False)


@pytest.mark.parametrize(
    ('energy', 'loss', 'frame_embedding'),
    [
        ('mlp', 'sig', True),
        ('bilinear', 'clip', False),
        ('cossim', 'sig', False),
        (None, 'clip', True),
    ],
)
def test_fills_the_model_for_every_loss(energy, loss, frame_embedding):
    variant = dict(energy=energy, loss=loss, frame_embedding=frame_embedding)
    ours, report = convert_eaglenet_release(
        release_state_dict(**variant), max_words=MAX_WORDS
    )
    assert report.options.energy == energy
    assert report.options.loss == loss
    assert report.options.frame_embedding is frame_embedding
    assert report.options.replay_size == (REPLAY_SIZE if energy else None)
    model = MODELS.build(model_config(**variant))
    parameters = dict(model.named_parameters())
    assert not set(check_model_fit(ours, model)) & set(parameters)


def test_options_read_off_the_shapes():
    options = convert_eaglenet_release(release_state_dict())[1].options
    assert options.embed_dim == EMBED_DIM
    assert options.num_frames == NUM_FRAMES
    assert options.max_words == 9


def test_values_arrive_where_they_belong():
    release = release_state_dict()
    ours, report = convert_eaglenet_release(release, max_words=MAX_WORDS)
    pairs = {
        'clip.visual.transformer.resblocks.2.attn.net.in_proj_weight': (
            'video_encoder.tower.transformer.resblocks.2.attn.in_proj_weight'
        ),
        'clip.visual.transformer.resblocks.0.attn.in_proj_weight': (
            'video_encoder.tower.transformer.resblocks.0.attn.in_proj_weight'
        ),
        'clip.visual.positional_embedding': (
            'video_encoder.tower.positional_embedding'
        ),
        'clip.text_projection': 'text_encoder.tower.text_projection',
        'clip.transformer.resblocks.0.mlp.c_fc.bias': (
            'text_encoder.tower.transformer.resblocks.0.mlp.c_fc.bias'
        ),
        'frame_pe': 'head.frame_embedding',
        'loss_fct.temp_prior': 'head.loss_match.log_scale',
        'loss_fct.bias': 'head.loss_match.bias',
        'stochastic.std_branch.linear_proj.bias': (
            'head.stochastic_text.radius.bias'
        ),
        'pool_frames.cross_attn.k_proj.weight': 'head.pooling.key.weight',
        'pool_frames.linear_proj.bias': 'head.pooling.linear.bias',
        'pool_frames.layer_norm2.weight': 'head.pooling.norm2.weight',
        'gnn.layers.0.lin_rels.1.weight': (
            'head.graph.hidden.0.frame_frame.project.weight'
        ),
        'gnn.layers.0.lin_out.weight': (
            'head.graph.hidden.0.self_project.weight'
        ),
        'gnn.layers.1.lin_rels.2.weight': 'head.graph.last.project.weight',
        'ebm.energy_net.2.weight': 'head.loss_energy.energy.output.weight',
        'ebm.replay_buffer_txt': f'{REPLAY}text',
    }
    for theirs, name in pairs.items():
        assert report.converted[theirs] == name
        assert torch.equal(ours[name], release[theirs])
    left = release['gnn.layers.0.att_l_rels.0.weight']
    assert torch.equal(ours['head.graph.hidden.0.text_text.left'], left[0])
    right = release['gnn.layers.1.att_r_rels.2.weight']
    assert torch.equal(ours['head.graph.last.right'], right[0])
    table = release['clip.positional_embedding']
    assert torch.equal(
        ours['text_encoder.tower.positional_embedding'], table[:MAX_WORDS]
    )


def test_scale_of_clip():
    release = release_state_dict(loss='clip')
    ours, _ = convert_eaglenet_release(release)
    assert torch.equal(
        ours['head.loss_match.log_scale'], release['clip.logit_scale']
    )


def test_every_name_is_converted_or_dropped_for_a_reason():
    release = release_state_dict()
    _, report = convert_eaglenet_release(release)
    assert set(report.converted) | set(report.dropped) == set(release)
    assert not set(report.converted) & set(report.dropped)
    assert all(report.dropped.values())
    assert set(report.dropped) == {
        'clip.logit_scale',
        'frame_position_embeddings.weight',
        'transformerClip.resblocks.0.ln_1.weight',
        'stochastic.std_branch.learnable_scalar',
        'gnn.layers.1.lin_out.weight',
        *(
            f'gnn.layers.1.{part}.{relation}.weight'
            for part in ('lin_rels', 'att_l_rels', 'att_r_rels')
            for relation in (0, 1)
        ),
    }


def test_one_layer_uses_the_second_of_two():
    release = release_state_dict(num_layers=1)
    ours, report = convert_eaglenet_release(release, num_graph_layers=1)
    assert torch.equal(
        ours['head.graph.last.project.weight'],
        release['gnn.layers.1.lin_rels.2.weight'],
    )
    skipped = {
        name: reason
        for name, reason in report.dropped.items()
        if name.startswith('gnn.layers.0.')
    }
    assert len(skipped) == 10
    assert all('num_layers is 1' in reason for reason in skipped.values())


@pytest.mark.parametrize(
    ('graph', 'name', 'ours'),
    [
        ('rgat', 'lin_rels.0', 'text_text.project.weight'),
        ('rgat', 'att_l_rels.1', 'frame_frame.left'),
        ('rgat', 'att_r_rels.2', 'frame_text.right'),
        ('rgat', 'lin_out', 'self_project.weight'),
        ('gat', 'lin1', 'project.weight'),
        ('gat', 'att_l', 'left'),
    ],
)
def test_graph_names(graph, name, ours):
    release = release_state_dict(graph=graph, num_layers=3)
    converted, report = convert_eaglenet_release(release)
    theirs, ours = f'gnn.layers.1.{name}.weight', f'head.graph.hidden.1.{ours}'
    assert report.converted[theirs] == ours
    assert torch.equal(converted[ours], release[theirs].squeeze(0))


def test_sigmoid_with_fixed_parameters():
    release = release_state_dict(loss='clip')
    ours, report = convert_eaglenet_release(release, loss='sig')
    assert 'head.loss_match.log_scale' not in ours
    assert 'clip.logit_scale' in report.dropped


def test_module_prefix_and_half_precision():
    release = release_state_dict()
    wrapped = {
        f'module.{name}': value.half() if value.ndim > 1 else value
        for name, value in release.items()
    }
    ours, _ = convert_eaglenet_release(wrapped)
    expected, _ = convert_eaglenet_release(release)
    assert set(ours) == set(expected)
    for name, value in ours.items():
        assert value.dtype == expected[name].dtype
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_replay_fill_is_counted():
    release = release_state_dict()
    fill = convert_eaglenet_release(release)[0][f'{REPLAY}fill']
    assert fill.dtype == torch.int64
    assert int(fill) == 3
    release['ebm.replay_buffer_vid'].zero_()
    release['ebm.replay_buffer_txt'].zero_()
    assert int(convert_eaglenet_release(release)[0][f'{REPLAY}fill']) == 0
    release['ebm.replay_buffer_txt'][-1, 0] = 1
    fill = convert_eaglenet_release(release)[0][f'{REPLAY}fill']
    assert int(fill) == REPLAY_SIZE


def test_unknown_names():
    release = release_state_dict()
    release['gnn.layers.0.lin_rels.3.weight'] = torch.zeros(2)
    release['frame_pe_2'] = torch.zeros(2)
    with pytest.raises(
        ValueError, match=r'2 names .*lin_rels\.3\.weight, frame_pe_2'
    ):
        convert_eaglenet_release(release)


@pytest.mark.parametrize('name', ['clip.visual.proj', 'gnn.'])
def test_incomplete_checkpoint(name):
    release = {
        key: value
        for key, value in release_state_dict().items()
        if not key.startswith(name)
    }
    with pytest.raises(ValueError, match=f'missing: {name}'):
        convert_eaglenet_release(release)


def test_options_that_contradict_the_checkpoint():
    release = release_state_dict()
    with pytest.raises(ValueError, match=r'=3 contradicts .* 2 layers'):
        convert_eaglenet_release(release, num_graph_layers=3)
    with pytest.raises(ValueError, match=r'=1 contradicts .* 3 layers'):
        convert_eaglenet_release(
            release_state_dict(num_layers=3), num_graph_layers=1
        )
    with pytest.raises(ValueError, match=r"got 'clip' for .* with them"):
        convert_eaglenet_release(release, loss='clip')
    with pytest.raises(ValueError, match="got 'infonce'"):
        convert_eaglenet_release(release, loss='infonce')
    for wrong in (0, 10):
        with pytest.raises(ValueError, match=rf'\[1, 9\].* got {wrong}'):
            convert_eaglenet_release(release, max_words=wrong)


def test_a_model_tells_what_the_file_leaves_open():
    model = MODELS.build(model_config(num_layers=1))
    ours, report = convert_eaglenet_release(
        {'state_dict': release_state_dict(num_layers=1)}, model=model
    )
    assert report.options.num_graph_layers == 1
    assert report.options.max_words == MAX_WORDS
    assert 'head.noise_table' in report.kept
    model.load_state_dict(ours, strict=False)


def test_a_model_that_computes_other_features():
    config = model_config()
    config['video_encoder']['shift_layers'] = (2,)
    with pytest.raises(ValueError, match=r'shift_layers=\(1, 2\)'):
        convert_eaglenet_release(
            release_state_dict(), model=MODELS.build(config)
        )
    config['head'] = dict(type='XPoolHead', embed_dim=EMBED_DIM)
    with pytest.raises(ValueError, match='XPoolHead'):
        convert_eaglenet_release(
            release_state_dict(), model=MODELS.build(config)
        )
