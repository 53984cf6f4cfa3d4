import pytest
import torch

from eaglenet_mm.models.encoders.clip_tower import (
    build_text_tower,
    build_vision_tower,
    resolve_arch,
)
from tests.models.encoders.tiny_clip import reference_clip, tiny_arch


def vision(shift_layers=(), **changes):
    config = resolve_arch(tiny_arch(**changes))
    return build_vision_tower(config, shift_layers=shift_layers)


def text(max_words=None, **changes):
    config = resolve_arch(tiny_arch(**changes))
    return build_text_tower(config, max_words=max_words)


@pytest.mark.parametrize('name', ['ViT-B-32-quickgelu', 'ViT-B/32-quickgelu'])
def test_arch_by_name(name):
    config = resolve_arch(name)
    assert config['embed_dim'] == 512
    assert config['quick_gelu'] is True
    assert config['vision_cfg']['patch_size'] == 32


def test_quick_gelu_is_off_unless_named():
    assert resolve_arch('ViT-B-32')['quick_gelu'] is False
    arch = tiny_arch()
    del arch['quick_gelu']
    assert resolve_arch(arch)['quick_gelu'] is False


def test_names_and_order_are_those_of_open_clip():
    reference = reference_clip()
    assert list(vision((0, -1)).state_dict()) == list(
        reference.visual.state_dict()
    )
    names = set(reference.state_dict())
    for name, value in text().state_dict().items():
        assert name in names
        assert value.shape == reference.state_dict()[name].shape


@pytest.mark.parametrize(
    ('layers', 'shifted'),
    [((), []), ((0, 2), [0, 2]), ((-1,), [2]), ((1, -2), [1])],
)
def test_shift_layers(layers, shifted):
    blocks = vision(layers).transformer.resblocks
    assert [
        i for i, block in enumerate(blocks) if block.shift is not None
    ] == shifted


def test_max_words_sizes_the_table():
    assert text(5).positional_embedding.shape == (5, 64)
    assert text(30).positional_embedding.shape == (30, 64)


def test_unknown_model_name():
    with pytest.raises(ValueError, match=r"no model 'ViT-B-32-qickgelu'.*ViT"):
        resolve_arch('ViT-B-32-qickgelu')


def test_unknown_key():
    with pytest.raises(ValueError, match=r"\['visoin_cfg'\]"):
        resolve_arch(dict(embed_dim=4, visoin_cfg={}))


def test_missing_keys():
    with pytest.raises(KeyError, match='embed_dim'):
        resolve_arch(dict(vision_cfg={}))
    with pytest.raises(KeyError, match='vision_cfg'):
        build_vision_tower(resolve_arch(dict(embed_dim=4)))
    with pytest.raises(KeyError, match='text_cfg'):
        build_text_tower(resolve_arch(dict(embed_dim=4)))


def test_unknown_key_of_a_tower():
    with pytest.raises(ValueError, match=r'no such vision_cfg.*depth'):
        vision(vision_cfg__depth=3)
    with pytest.raises(ValueError, match=r'no such text_cfg.*depth'):
        text(text_cfg__depth=3)


@pytest.mark.parametrize('layer', [3, -4, 10])
def test_shift_layer_out_of_range(layer):
    with pytest.raises(ValueError, match=rf'3 layers, but got \[{layer}\]'):
        vision((0, layer))


def test_too_few_tokens_to_shift():
    with pytest.raises(ValueError, match=r'at least 7 tokens .* but got 5'):
        vision((0,), vision_cfg__image_size=8)
    assert vision((), vision_cfg__image_size=8) is not None


def test_patch_dropout_breaks_the_shift():
    with pytest.raises(ValueError, match='patch_dropout'):
        vision((0,), vision_cfg__patch_dropout=0.5)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        (dict(vision_cfg__layers=(1, 1, 1, 1)), 'ModifiedResNet'),
        (dict(vision_cfg__pool_type='avg'), 'than the class token'),
        (dict(vision_cfg__attentional_pool=True), 'than the class token'),
    ],
)
def test_other_image_towers(changes, reason):
    with pytest.raises(ValueError, match=reason):
        vision(**changes)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        (dict(text_cfg__hf_model_name='roberta-base'), 'roberta-base'),
        (dict(text_cfg__no_causal_mask=True), 'bidirectional'),
        (dict(text_cfg__pool_type='last'), 'than the end token'),
        (dict(text_cfg__embed_cls=True), 'than the end token'),
        (dict(text_cfg__proj_bias=True), 'no plain projection'),
    ],
)
def test_other_text_towers(changes, reason):
    with pytest.raises(ValueError, match=reason):
        text(**changes)


def test_custom_blocks():
    """open_clip before 3.0 has none of these options and says so."""
    reason = r'type CustomResidualAttentionBlock|no such vision_cfg.*scale_fc'
    with pytest.raises(ValueError, match=reason):
        vision(vision_cfg__scale_fc=True)


def test_max_words_below_one():
    with pytest.raises(ValueError, match='positive, but got 0'):
        text(0)


def test_half_precision_norms():
    config = resolve_arch(tiny_arch())
    tower = build_vision_tower(config, cast_dtype=torch.float16)
    normed = tower.ln_post(torch.randn(2, 64).half())
    assert normed.dtype == torch.float16
    assert tower.ln_post.weight.dtype == torch.float32
