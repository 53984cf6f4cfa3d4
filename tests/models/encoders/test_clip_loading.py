import pytest
import torch

from eaglenet_mm.models.encoders.clip_tower import (
    build_text_tower,
    build_vision_tower,
    resolve_arch,
)
from eaglenet_mm.models.encoders.clip_weights import (
    CLIPWeights,
    load_tower,
    select_tower,
)
from tests.models.encoders.tiny_clip import reference_clip, tiny_arch


def make_weights(is_openai=False, **changes):
    state = reference_clip(**changes).state_dict()
    return CLIPWeights(dict(state), 'clip.pt', is_openai)


def text_tower(max_words=None, **changes):
    return build_text_tower(
        resolve_arch(tiny_arch(**changes)), max_words=max_words
    )


def vision_tower(**changes):
    return build_vision_tower(resolve_arch(tiny_arch(**changes)))


def test_towers_take_their_part():
    weights = make_weights()
    for side, tower in (('vision', vision_tower()), ('text', text_tower())):
        count = load_tower(tower, weights, side, quick_gelu=True)
        state = tower.state_dict()
        assert count == len(state)
        prefix = 'visual.' if side == 'vision' else ''
        for name, value in state.items():
            assert torch.equal(value, weights.tensors[prefix + name])


def test_text_tower_under_a_prefix():
    plain = make_weights()
    custom = CLIPWeights(
        {
            k if k.startswith('visual.') else f'text.{k}': v
            for k, v in plain.tensors.items()
            if k != 'logit_scale'
        },
        'clip.pt',
        False,
    )
    assert set(select_tower(custom, 'text')) == set(
        select_tower(plain, 'text')
    )


def test_half_precision_file_keeps_float32_parameters():
    weights = make_weights()
    halves = {k: v.half() for k, v in weights.tensors.items()}
    tower = vision_tower()
    load_tower(
        tower, CLIPWeights(halves, 'c', False), 'vision', quick_gelu=True
    )
    assert tower.proj.dtype == torch.float32
    assert torch.equal(tower.proj, halves['visual.proj'].float())


def test_positional_table_is_sliced():
    weights = make_weights()
    tower = text_tower(4)
    load_tower(tower, weights, 'text', quick_gelu=True)
    table = weights.tensors['positional_embedding']
    assert torch.equal(tower.positional_embedding, table[:4])


def test_missing_and_unexpected_names():
    weights = make_weights()
    del weights.tensors['visual.proj']
    weights.tensors['visual.head'] = torch.zeros(2)
    with pytest.raises(
        ValueError, match=r'1 missing: proj; 1 unexpected: head\. Use'
    ):
        load_tower(vision_tower(), weights, 'vision', quick_gelu=True)


def test_other_depth_names_some_keys():
    with pytest.raises(
        ValueError, match=r'12 unexpected: .*resblocks\.2\..* and 7 more'
    ):
        load_tower(
            vision_tower(vision_cfg__layers=2),
            make_weights(),
            'vision',
            quick_gelu=True,
        )


def test_nothing_is_loaded_from_a_file_that_does_not_fit():
    tower, weights = vision_tower(), make_weights()
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    del weights.tensors['visual.proj']
    with pytest.raises(ValueError, match='missing'):
        load_tower(tower, weights, 'vision', quick_gelu=True)
    for name, value in tower.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ('name', 'mend'),
    [
        ('vision_model.embeddings.class_embedding', 'Hugging Face'),
        ('module.clip.visual.proj', 'eaglenet_release.py'),
        ('video_encoder.tower.proj', 'load_from'),
        ('fc.weight', 'complete CLIP model'),
    ],
)
def test_files_without_the_tower(name, mend):
    weights = CLIPWeights({name: torch.zeros(2)}, 'other.pt', False)
    for side in ('vision', 'text'):
        with pytest.raises(ValueError, match=f'{name}.*{mend}'):
            select_tower(weights, side)


def test_openai_needs_quick_gelu():
    with pytest.raises(ValueError, match='quick_gelu=False'):
        load_tower(
            vision_tower(), make_weights(True), 'vision', quick_gelu=False
        )
    load_tower(vision_tower(), make_weights(True), 'vision', quick_gelu=True)


def test_openai_has_heads_of_64():
    with pytest.raises(ValueError, match='heads of width 32'):
        load_tower(
            vision_tower(vision_cfg__head_width=32),
            make_weights(True),
            'vision',
            quick_gelu=True,
        )
