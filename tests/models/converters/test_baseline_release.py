import re

import pytest
import torch
from mmengine.logging import HistoryBuffer

from eaglenet_mm.models.converters import METHODS, convert_baseline_release
from eaglenet_mm.registry import MODELS
from tests.models.converters.baseline_checkpoint import (
    EMBED_DIM,
    MAX_WORDS,
    NUM_FRAMES,
    NUM_POSITIONS,
    head_shapes,
    model_config,
    release_state_dict,
)
from tests.models.converters.release_checkpoint import (
    release_state_dict as eaglenet_state_dict,
)
from tests.models.encoders.tiny_clip import pixels, token_ids
from tests.some_cases import mostly_nightly

EVERY = pytest.mark.parametrize('method', list(METHODS))
SCALE = 'head.loss_match.log_scale'
#: Random numbers, which every head makes itself.
OWN = {'head.noise_table', 'head.random_key'}


def build(method, width=EMBED_DIM, **head):
    config = model_config(method, width)
    config['head'].update(head)
    return MODELS.build(config).eval()


def without(state, pattern):
    return {k: v for k, v in state.items() if not re.match(pattern, k)}


@EVERY
def test_fills_the_model(method):
    release = release_state_dict(method)
    model = build(method)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ours, report = convert_baseline_release(release, method, model=model)
    assert all(
        torch.equal(value, before[name])
        for name, value in model.state_dict().items()
    )
    used = set(report.converted) | set(report.dropped)
    assert used == set(release)
    assert not set(report.converted) & set(report.dropped)
    assert set(ours) == set(report.converted.values()) | set(report.filled)
    assert set(report.kept) <= OWN
    model.load_state_dict(ours, strict=True)
    for value in ours.values():
        assert value.is_contiguous()
        assert value.dtype == torch.float32
    with torch.no_grad():
        text = model.text_encoder(token_ids([3, 5], columns=MAX_WORDS))
        video = model.video_encoder(pixels(4, NUM_FRAMES))
        scores = model.head(text, video)
    assert scores.shape == (2, 4)
    assert scores.isfinite().all()


@pytest.mark.parametrize('method', mostly_nightly(METHODS, 'ts2_net'))
def test_the_head_is_complete_without_a_config(method):
    release = release_state_dict(method)
    ours, _ = convert_baseline_release(release, method)
    model = build(method)
    for name, value in model.state_dict().items():
        if name in OWN:
            continue
        assert ours[name].shape[1:] == value.shape[1:], name
    assert set(ours) <= set(model.state_dict())


@pytest.mark.parametrize(
    ('method', 'theirs', 'ours'),
    [
        (
            'x_pool',
            'pool_frames.cross_attn.v_proj.weight',
            'pooling.value.weight',
        ),
        (
            't_mass',
            'stochastic.std_branch.linear_proj.weight',
            'stochastic_text.radius.weight',
        ),
        (
            'clip4clip_lstm',
            'lstm_visual.weight_hh_l0',
            'temporal.lstm.weight_hh_l0',
        ),
        (
            'clip4clip_transformer',
            'transformerClip.resblocks.1.mlp.c_proj.weight',
            'temporal.blocks.1.shrink.weight',
        ),
        (
            'clip4clip_tight',
            'cross.pooler.ln_pool.bias',
            'norm.bias',
        ),
        (
            'ts2_net',
            'visual_token_selector.score_predictor.out_conv.2.weight',
            'selector.score.weight',
        ),
        ('wti', 'video_weight_fc.2.bias', 'video_weight.2.bias'),
    ],
)
def test_values_arrive_where_they_belong(method, theirs, ours):
    release = release_state_dict(method)
    converted, report = convert_baseline_release(release, method)
    assert report.converted[theirs] == f'head.{ours}'
    assert torch.equal(converted[f'head.{ours}'], release[theirs])


@EVERY
def test_the_scale_belongs_to_the_loss(method):
    ours, report = convert_baseline_release(release_state_dict(method), method)
    if method == 'clip4clip_tight':
        assert 'tightTransf does not use' in report.dropped['clip.logit_scale']
        assert float(ours[SCALE]) == 0
    else:
        assert report.converted['clip.logit_scale'] == SCALE
        assert float(ours[SCALE]) == 4.5


def test_a_head_without_a_loss():
    model = build('clip4clip_mean', loss_match=None)
    ours, report = convert_baseline_release(
        release_state_dict('clip4clip_mean'), 'clip4clip_mean', model=model
    )
    assert SCALE not in ours
    assert 'no loss' in report.dropped['clip.logit_scale']
    model.load_state_dict(ours, strict=True)


def test_unused_parameters_are_left_out():
    dropped = convert_baseline_release(release_state_dict('t_mass'), 't_mass')[
        1
    ].dropped
    assert set(dropped) == {
        'stochastic.std_branch.learnable_scalar',
        'clip.text_model.embeddings.position_ids',
        'clip.vision_model.embeddings.position_ids',
    }
    release = release_state_dict('clip4clip_lstm')
    release['clip.context_length'] = torch.tensor(9)
    dropped = convert_baseline_release(release, 'clip4clip_lstm')[1].dropped
    assert set(dropped) == {
        'clip.context_length',
        'frame_position_embeddings.weight',
    }


def test_tables_are_cut_to_the_model_and_said_so():
    release = release_state_dict('clip4clip_tight')
    ours, report = convert_baseline_release(
        release, 'clip4clip_tight', model=build('clip4clip_tight')
    )
    table = release['cross.embeddings.position_embeddings.weight']
    assert torch.equal(ours['head.positions.weight'], table[: NUM_FRAMES + 1])
    assert report.notes == [
        'text_encoder.tower.positional_embedding: cut to the first 6 of 9 '
        'rows, as in the config',
        f'head.positions.weight: cut to the first 4 of {NUM_POSITIONS} rows, '
        'as in the config',
    ]


@pytest.mark.parametrize('method', ['t_mass', 'ts2_net'])
def test_wrappings_and_half_precision(method):
    release = release_state_dict(method)
    expected, _ = convert_baseline_release(release, method)
    wrapped = {
        f'module.{name}': value.half() if value.ndim > 1 else value
        for name, value in release.items()
        if not name.endswith('position_ids')
    }
    checkpoint = dict(epoch=3, state_dict=wrapped, optimizer=dict(state={}))
    ours, _ = convert_baseline_release(checkpoint, method)
    assert set(ours) == set(expected)
    for name, value in ours.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_the_result_shares_no_memory():
    release = release_state_dict('x_pool')
    ours, _ = convert_baseline_release(release, 'x_pool')
    before = {name: value.clone() for name, value in ours.items()}
    for value in release.values():
        value.zero_()
    assert all(torch.equal(ours[name], before[name]) for name in ours)


def test_x_pool_on_openai_names():
    release = release_state_dict('clip4clip_mean')
    for name, shape in head_shapes('x_pool').items():
        release[name] = torch.randn(shape)
    model = build('x_pool')
    ours, _ = convert_baseline_release(release, 'x_pool', model=model)
    model.load_state_dict(ours, strict=True)


@pytest.mark.parametrize('hugging_face', [False, True])
def test_clip_alone_without_prefix(hugging_face):
    method = 'x_pool' if hugging_face else 'clip4clip_mean'
    bare = {
        name.removeprefix('clip.'): value
        for name, value in release_state_dict(method).items()
        if name.startswith('clip.')
    }
    model = build('clip4clip_mean')
    ours, _ = convert_baseline_release(bare, 'clip4clip_mean', model=model)
    model.load_state_dict(ours, strict=True)


def test_mmaction2_mean_says_how_it_differs():
    checkpoint = dict(
        meta=dict(epoch=5),
        state_dict=release_state_dict('clip4clip_mean'),
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer())),
    )
    model = build('clip4clip_mean')
    ours, report = convert_baseline_release(
        checkpoint, 'clip4clip_mean', model=model
    )
    model.load_state_dict(ours, strict=True)
    assert any('mmaction2' in note for note in report.notes)
    _, report = convert_baseline_release(
        checkpoint['state_dict'], 'clip4clip_mean'
    )
    assert report.notes == []


@pytest.mark.parametrize('layers', [0, 1, 3])
def test_drl_with_other_numbers_of_weight_layers(layers):
    release = without(release_state_dict('wti'), r'.*_weight_fc')
    head = dict(num_weight_layers=layers or 2)
    if not layers:
        head['interaction'] = 'ti'
    for side in ('text', 'video') if layers else ():
        for place in range(layers):
            part = f'.{2 * place}' if layers > 1 else ''
            rows = 1 if place == layers - 1 else EMBED_DIM
            name = f'{side}_weight_fc{part}'
            release[f'{name}.weight'] = torch.randn(rows, EMBED_DIM)
            release[f'{name}.bias'] = torch.randn(rows)
    model = build('wti', **head)
    ours, _ = convert_baseline_release(release, 'wti', model=model)
    model.load_state_dict(ours, strict=True)


def test_drl_with_an_lstm():
    release = without(release_state_dict('wti'), r'transformerClip')
    for name, shape in head_shapes('clip4clip_lstm').items():
        release[name] = torch.randn(shape)
    temporal = dict(type='TemporalLSTM', embed_dim=EMBED_DIM)
    model = build('wti', temporal=temporal)
    ours, report = convert_baseline_release(release, 'wti', model=model)
    model.load_state_dict(ours, strict=True)
    assert 'frame_position_embeddings.weight' in report.dropped


@pytest.mark.parametrize(
    ('given', 'wanted', 'says'),
    [
        ('t_mass', 'x_pool', r'not X-Pool but .* T-MASS; run \S+ t_mass'),
        ('x_pool', 't_mass', r'not T-MASS but .* X-Pool; run \S+ x_pool'),
        ('clip4clip_lstm', 't_mass', r'seqLSTM; run \S+ clip4clip_lstm'),
        (
            'clip4clip_mean',
            't_mass',
            r'CLIP itself; run \S+ clip4clip_mean .* lacks '
            r'pool_frames\.cross_attn\.q_proj\.weight.*; add '
            r'--initialise-from-clip',
        ),
        ('clip4clip_transformer', 'wti', r'DRL without token weights'),
        ('clip4clip_tight', 'wti', r'tightTransf; run'),
        ('ts2_net', 'clip4clip_transformer', r'TS2-Net; run \S+ ts2_net'),
        ('wti', 'ts2_net', r'DRL \(WTI\); run \S+ wti .* WTIHead\.$'),
    ],
)
def test_a_checkpoint_of_another_method(given, wanted, says):
    with pytest.raises(ValueError, match=says):
        convert_baseline_release(release_state_dict(given), wanted)


@pytest.mark.parametrize(
    ('names', 'says'),
    [
        (
            ['head.pooling.query.weight'],
            r'checkpoint of eaglenet_mm; .*test\.py',
        ),
        (['module.text_proxy.dash_factor'], r'TV-ProxyNet.*CLIP-ViP'),
        (
            ['clip.visual.proj', 'adapter.positional_embedding'],
            r'TransformerAdapter, .* 1e-5 .*; test it with',
        ),
        (['backbone.weight'], r'not a checkpoint of X-Pool.*backbone\.weight'),
    ],
)
def test_checkpoints_from_elsewhere(names, says):
    state = {name: torch.zeros(1) for name in names}
    with pytest.raises(ValueError, match=says):
        convert_baseline_release(state, 'x_pool')


def test_a_checkpoint_of_eaglenet():
    with pytest.raises(ValueError, match=r'EagleNet release; run .*eaglenet_'):
        convert_baseline_release(eaglenet_state_dict(), 't_mass')


def test_a_config_of_another_method():
    with pytest.raises(
        ValueError, match=r'x_pool gives .* XPoolHead, but .* is TMASSHead'
    ):
        convert_baseline_release(
            release_state_dict('x_pool'), 'x_pool', model=build('t_mass')
        )
    with pytest.raises(ValueError, match=r"got 'xpool'"):
        convert_baseline_release({}, 'xpool')


@pytest.mark.parametrize(
    'method', mostly_nightly(METHODS, 'x_pool', 'clip4clip_tight')
)
def test_unknown_and_missing_names_are_listed(method):
    release = release_state_dict(method)
    lost = next(
        n
        for n in release
        if n.endswith(('ln_post.bias', 'post_layernorm.bias'))
    )
    del release[lost]
    release['similarity.scale'] = torch.zeros(1)
    with pytest.raises(
        ValueError,
        match=r'1 names unknown: similarity\.scale; 1 names missing: '
        r'clip\.visual\.ln_post\.bias',
    ):
        convert_baseline_release(release, method)


@pytest.mark.parametrize(
    'method', mostly_nightly(['x_pool', 't_mass', 'ts2_net', 'wti'], 'wti')
)
def test_every_parameter_of_a_head_is_needed(method):
    release = release_state_dict(method)
    _, report = convert_baseline_release(release, method)
    for name in head_shapes(method):
        if name in report.dropped:
            continue
        rest = {k: v for k, v in release.items() if k != name}
        with pytest.raises(ValueError, match=re.escape(name)):
            convert_baseline_release(rest, method)


def test_three_dimensional_patches():
    release = release_state_dict('clip4clip_mean')
    release['clip.visual.conv2.weight'] = torch.zeros(2, 3, 3, 4, 4)
    with pytest.raises(ValueError, match=r'--linear_patch 3d'):
        convert_baseline_release(release, 'clip4clip_mean')


def test_two_names_of_one_parameter():
    release = release_state_dict('ts2_net')
    name = 'clip.visual.transformer.resblocks.1.attn.{}in_proj_bias'
    release[name.format('')] = release[name.format('net.')]
    with pytest.raises(ValueError, match=r'same parameter'):
        convert_baseline_release(release, 'ts2_net')


def test_shapes_that_do_not_fit():
    release = release_state_dict('t_mass')
    name = 'stochastic.std_branch.linear_proj.weight'
    release[name] = torch.zeros(EMBED_DIM, 12)
    with pytest.raises(
        ValueError, match=r'radius\.weight \(16, 12\), \(16, 3\)'
    ):
        convert_baseline_release(release, 't_mass', model=build('t_mass'))


def test_entries_that_are_no_tensors():
    release = release_state_dict('x_pool')
    with pytest.raises(TypeError, match='best_score'):
        convert_baseline_release({**release, 'best_score': 3}, 'x_pool')
    with pytest.raises(TypeError, match='got a list'):
        convert_baseline_release([torch.zeros(2)], 'x_pool')
    with pytest.raises(ValueError, match='is empty'):
        convert_baseline_release({'state_dict': {}}, 'x_pool')
