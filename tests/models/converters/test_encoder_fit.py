import pytest
import torch

from eaglenet_mm.models.converters import convert_baseline_release
from eaglenet_mm.models.converters.model_fit import check_encoders
from eaglenet_mm.registry import MODELS
from tests.models.converters.baseline_checkpoint import (
    model_config,
    release_state_dict,
)
from tests.models.encoders.tiny_clip import tiny_arch


@pytest.mark.parametrize(
    ('method', 'layers', 'says'),
    [
        ('ts2_net', (), r'blocks \[1, 2\], .* in \(\). Set .*=\(1, 2\)'),
        ('x_pool', (2,), r'blocks \(\), .* in \[2\]. Set shift_layers=\(\)'),
    ],
)
def test_another_token_shift(method, layers, says):
    config = model_config(method)
    config['video_encoder']['shift_layers'] = layers
    with pytest.raises(ValueError, match=says):
        convert_baseline_release(
            release_state_dict(method), method, model=MODELS.build(config)
        )


@pytest.mark.parametrize('side', ['text_encoder', 'video_encoder'])
def test_another_activation(side):
    config = model_config('x_pool')
    config[side]['arch'] = tiny_arch(quick_gelu=False)
    with pytest.raises(ValueError, match=rf'{side} .* does not'):
        check_encoders(MODELS.build(config), ())


def test_another_width_of_heads_is_said():
    config = model_config('x_pool')
    assert check_encoders(MODELS.build(config), ()) == []
    config['text_encoder']['arch'] = tiny_arch(text_cfg__heads=4)
    (note,) = check_encoders(MODELS.build(config), ())
    assert 'text_encoder are 16 wide' in note


def test_another_encoder():
    model = MODELS.build(model_config('x_pool'))
    model.video_encoder = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r'video_encoder .* is a Linear'):
        check_encoders(model, ())
