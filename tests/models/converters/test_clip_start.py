import pytest
import torch

from eaglenet_mm.models.converters import METHODS, convert_baseline_release
from eaglenet_mm.registry import MODELS
from tests.models.converters.baseline_checkpoint import (
    NUM_FRAMES,
    model_config,
    release_state_dict,
)
from tests.some_cases import mostly_nightly

#: Of text tower and features, as in CLIP.
WIDTH = 64
POSITIONS = 'head.temporal.positions.weight'
BLOCKS = 'head.temporal.blocks'
TEXT = 'clip.transformer.resblocks'
CLIP = 'clip4clip_mean'


def build(method):
    return MODELS.build(model_config(method, WIDTH))


@pytest.mark.parametrize(
    'method', mostly_nightly(METHODS, 'x_pool', 'ts2_net')
)
def test_a_training_starts_from_clip(method):
    release = release_state_dict(CLIP, WIDTH)
    config = model_config(method, WIDTH)
    if method == 'ts2_net':  # 4 positions a frame, and the tiny CLIP has 9
        config['head']['num_frames'] = 2
    model = MODELS.build(config)
    ours, report = convert_baseline_release(
        release, method, model=model, initialise_from_clip=True
    )
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(ours, strict=True)
    by_model = [k for k, v in report.filled.items() if 'by the config' in v]
    for name in by_model:
        assert torch.equal(ours[name], expected[name])
        assert name.startswith('head.')
        assert 'blocks' not in name
    assert set(report.converted) | set(report.dropped) == set(release)


@pytest.mark.parametrize('method', ['clip4clip_transformer', 'wti', 'ts2_net'])
def test_text_positions_and_blocks_are_copied(method):
    release = release_state_dict(method, WIDTH)
    rest = {
        name: value
        for name, value in release.items()
        if not name.startswith('transformerClip.')
    }
    ours, report = convert_baseline_release(
        rest, method, model=build(method), initialise_from_clip=True
    )
    for block in (0, 1):
        assert torch.equal(
            ours[f'{BLOCKS}.{block}.qkv.weight'],
            release[f'{TEXT}.{block}.attn.in_proj_weight'],
        )
    name = f'{BLOCKS}.1.shrink.bias'
    assert report.filled[name] == f'copied from {TEXT}.1.mlp.c_proj.bias'
    # the file's own positions stay
    table = release['frame_position_embeddings.weight']
    assert torch.equal(ours[POSITIONS], table[: len(ours[POSITIONS])])


def test_the_tight_transformer():
    release = release_state_dict(CLIP, WIDTH)
    ours, _ = convert_baseline_release(
        release,
        'clip4clip_tight',
        model=build('clip4clip_tight'),
        initialise_from_clip=True,
    )
    assert torch.equal(
        ours['head.positions.weight'],
        release['clip.positional_embedding'][: NUM_FRAMES + 1],
    )
    assert torch.equal(
        ours['head.blocks.0.hidden.weight'],
        release[f'{TEXT}.0.mlp.c_fc.weight'],
    )


def test_copies_are_apart():
    release = release_state_dict(CLIP, WIDTH)
    ours, _ = convert_baseline_release(
        release,
        'clip4clip_transformer',
        model=build('clip4clip_transformer'),
        initialise_from_clip=True,
    )
    table = ours['text_encoder.tower.positional_embedding']
    before = table.clone()
    ours[POSITIONS].zero_()
    assert torch.equal(table, before)


def test_nothing_is_copied_unasked():
    release = release_state_dict('ts2_net', WIDTH)
    del release['frame_position_embeddings.weight']
    with pytest.raises(
        ValueError,
        match=r'1 names missing: frame_position_embeddings\.weight. .* add '
        '--initialise-from-clip',
    ):
        convert_baseline_release(release, 'ts2_net')


def test_part_of_the_blocks_is_no_start():
    release = release_state_dict('ts2_net', WIDTH)
    del release['transformerClip.resblocks.0.ln_1.bias']
    with pytest.raises(ValueError, match=r'resblocks\.0\.ln_1\.bias'):
        convert_baseline_release(release, 'ts2_net', initialise_from_clip=True)


def test_clip_of_another_width():
    with pytest.raises(ValueError, match=r'64 wide and its features 16'):
        convert_baseline_release(
            release_state_dict(CLIP),
            'clip4clip_transformer',
            model=MODELS.build(model_config('clip4clip_transformer')),
            initialise_from_clip=True,
        )


def test_clip_with_too_few_blocks():
    # the tiny text tower has two, the published transformer four
    with pytest.raises(ValueError, match=r'4 blocks .* which has 2'):
        convert_baseline_release(
            release_state_dict(CLIP, WIDTH),
            'clip4clip_transformer',
            initialise_from_clip=True,
        )


def test_the_rest_of_a_head_needs_a_config():
    with pytest.raises(ValueError, match=r'TS2-Net has .* Give --config'):
        convert_baseline_release(
            release_state_dict(CLIP, WIDTH),
            'ts2_net',
            initialise_from_clip=True,
        )
