"""What both encoders share."""

import copy

import pytest
import torch
from mmengine.logging import MMLogger

from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
)
from tests.models.encoders.tiny_clip import (
    NUM_LAYERS,
    pixels,
    reference_clip,
    tiny_arch,
    token_ids,
)


def make(side, **kwargs):
    arch = kwargs.pop('arch', tiny_arch())
    if side == 'text':
        return CLIPTextEncoder(arch, **kwargs)
    return CLIPVideoEncoder(arch, shift_layers=(1, -1), **kwargs)


def encode(encoder):
    """Features of a fixed input."""
    torch.manual_seed(1)
    if isinstance(encoder, CLIPTextEncoder):
        return encoder(token_ids([3, 9, 5])).embeds
    dtype = next(encoder.parameters()).dtype
    return encoder(pixels().to(dtype)).frames


both = pytest.mark.parametrize('side', ['text', 'video'])


@both
def test_pretrained_weights_survive_init_weights(side, tmp_path):
    state = reference_clip().state_dict()
    torch.save(state, tmp_path / 'clip.pt')
    encoder = make(side, pretrained=str(tmp_path / 'clip.pt'))
    encoder.init_weights()
    name = 'text_projection' if side == 'text' else 'proj'
    prefix = '' if side == 'text' else 'visual.'
    assert torch.equal(encoder.tower.state_dict()[name], state[prefix + name])


@both
def test_loaded_weights_are_said(side, tmp_path, caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [caplog.handler])
    torch.save(reference_clip().state_dict(), tmp_path / 'clip.pt')
    make(side, pretrained=str(tmp_path / 'clip.pt'))
    assert 'tensors loaded' in caplog.text


@both
def test_train_and_eval_agree(side):
    encoder = make(side)
    expected = encode(encoder.train())
    with torch.no_grad():
        torch.testing.assert_close(encode(encoder.train()), expected)
        torch.testing.assert_close(encode(encoder.eval()), expected)


@both
def test_checkpointing_changes_no_gradient(side):
    plain = make(side).double()
    frugal = make(side, gradient_checkpointing=True).double()
    frugal.load_state_dict(plain.state_dict())
    gradients = []
    for encoder in (plain, frugal):
        output = encode(encoder)
        if side == 'video':  # another number of frames before backward
            output = output[:, :2] + encoder(pixels(2, 2).double()).frames
        output.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_checkpointing_computes_blocks_again():
    encoder = make('text', gradient_checkpointing=True)
    calls = []
    encoder.tower.transformer.resblocks[0].ln_1.register_forward_hook(
        lambda *_: calls.append(1)
    )
    encode(encoder).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        encode(encoder)
    assert len(calls) == 3


@both
def test_deepcopy(side):
    encoder = make(side, gradient_checkpointing=True)
    twin = copy.deepcopy(encoder)
    torch.testing.assert_close(encode(twin), encode(encoder))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(encode(twin), encode(encoder))


FROZEN = {
    'text': {'token_embedding.weight', 'positional_embedding'},
    'video': {
        'conv1.weight',
        'class_embedding',
        'positional_embedding',
        'ln_pre.weight',
        'ln_pre.bias',
    },
}


def frozen_names(encoder):
    return {
        name
        for name, parameter in encoder.tower.named_parameters()
        if not parameter.requires_grad
    }


@both
def test_frozen_as_in_the_release(side):
    encoder = make(side, frozen='release')
    assert frozen_names(encoder) == FROZEN[side]
    encoder.requires_grad_(True)
    assert encoder.train() is encoder
    assert frozen_names(encoder) == FROZEN[side]
    encode(encoder).sum().backward()
    for name, parameter in encoder.tower.named_parameters():
        assert (parameter.grad is None) == (name in FROZEN[side])


@both
def test_nothing_is_frozen_by_default(side):
    assert not frozen_names(make(side).train())


@both
def test_frozen_layers(side):
    encoder = make(side, frozen='release', num_frozen_layers=1)
    first = {
        name
        for name, _ in encoder.tower.named_parameters()
        if name.startswith('transformer.resblocks.0.')
    }
    assert len(first) == 12
    assert frozen_names(encoder) == FROZEN[side] | first
    with torch.no_grad():
        expected = encode(encoder)
    torch.testing.assert_close(encode(encoder), expected)


@both
def test_half_precision_weights(side):
    torch.manual_seed(0)
    half = make(side, precision='fp16')
    full = make(side)
    full.load_state_dict(half.state_dict())
    types = {
        name: parameter.dtype
        for name, parameter in half.tower.named_parameters()
    }
    for name, dtype in types.items():
        stays = 'ln_' in name or 'embedding' in name
        assert dtype == (torch.float32 if stays else torch.float16), name
    output = encode(half)
    assert output.dtype == torch.float32
    expected = encode(full)
    error = (output - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.02
    output.sum().backward()
    for name, parameter in half.tower.named_parameters():
        assert parameter.grad.isfinite().all(), name


@both
def test_autocast(side):
    encoder = make(side)
    expected = encode(encoder)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = encode(encoder)
    assert output.dtype == torch.float32
    error = (output - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.05


@both
def test_double_precision(side):
    assert encode(make(side).double()).dtype == torch.float64


@both
def test_unknown_options(side):
    with pytest.raises(ValueError, match=r"precision .* 'bf16'"):
        make(side, precision='bf16')
    with pytest.raises(ValueError, match=r"frozen .* 'all'"):
        make(side, frozen='all')


@both
def test_wrong_number_of_frozen_layers(side):
    num_layers = 2 if side == 'text' else NUM_LAYERS
    for wrong in (-1, num_layers + 1):
        with pytest.raises(
            ValueError, match=rf'\[0, {num_layers}\].* but got {wrong}'
        ):
            make(side, frozen='release', num_frozen_layers=wrong)
    with pytest.raises(ValueError, match='num_frozen_layers=1 has no effect'):
        make(side, num_frozen_layers=1)
