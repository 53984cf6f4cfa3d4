"""LoRA of CLIP's towers by peft, and parts wrapped or replaced by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eaglenet_mm.models.encoders import CLIPTextEncoder, CLIPVideoEncoder
from eaglenet_mm.models.encoders.clip_encoder import CLIPEncoder
from eaglenet_mm.models.encoders.clip_tower import CLIPAttention
from tests.models.encoders.tiny_clip import pixels, tiny_arch, token_ids
from tests.some_cases import mostly_nightly

KINDS = ['video', 'text']
#: Linear maps of a block: of queries, keys and values, of the output, and
#: two of the network.
MAPS = 4


def make(kind: str, **options: Any) -> CLIPEncoder:
    torch.manual_seed(0)
    if kind == 'text':
        return CLIPTextEncoder(tiny_arch(), **options)
    return CLIPVideoEncoder(tiny_arch(), shift_layers=(1,), **options)


def run(encoder: CLIPEncoder) -> Tensor:
    torch.manual_seed(1)
    if encoder.side == 'text':
        return encoder(token_ids([3, 9, 5])).embeds
    return encoder(pixels()).frames


def num_blocks(encoder: CLIPEncoder) -> int:
    return len(encoder.tower.transformer.resblocks)


class Wrapped(nn.Module):
    """Adds a learnt part to what a module of any kind gives."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.calls = 0
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        result = self.base(*args, **kwargs)
        if isinstance(result, tuple):  # of an attention
            return result[0] * (1 + self.scale), *result[1:]
        return result * (1 + self.scale)


class Quantised(nn.Module):
    """A linear map in int8, without a ``weight`` that anyone could read."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        matrix = linear.weight.detach()
        self.step = matrix.abs().amax(1, keepdim=True) / 127
        self.codes = (matrix / self.step).round().to(torch.int8)
        self.offset = linear.bias.detach()

    def forward(self, tokens: Tensor) -> Tensor:
        matrix = self.codes.to(tokens.dtype) * self.step
        return tokens @ matrix.T + self.offset


def replace(model: nn.Module, kinds: tuple[type, ...], new: Any) -> list:
    """Replace all parts of some kinds, the inner ones first."""
    places = [
        name for name, part in model.named_modules() if isinstance(part, kinds)
    ]
    made = []
    for name in reversed(places):
        path, _, last = name.rpartition('.')
        made.append(new(model.get_submodule(name)))
        setattr(model.get_submodule(path), last, made[-1])
    return made


@pytest.mark.parametrize('kind', KINDS)
def test_every_part_is_called(kind: str) -> None:
    encoder = make(kind)
    expected = run(encoder)
    kinds = (nn.Linear, nn.MultiheadAttention, nn.LayerNorm, nn.Conv2d,
             nn.Embedding)  # fmt: skip
    wrapped = replace(encoder.tower, kinds, Wrapped)
    assert len(wrapped) >= 6 * num_blocks(encoder)
    assert torch.equal(run(encoder), expected)
    assert [part.calls for part in wrapped] == [1] * len(wrapped)
    run(encoder).square().sum().backward()
    assert all(part.scale.grad.abs() > 0 for part in wrapped)
    with torch.no_grad():
        before = run(encoder)
        for part in wrapped:
            part.scale.fill_(0.1)
            assert not torch.equal(run(encoder), before)
            part.scale.zero_()


@pytest.mark.parametrize('kind', KINDS)
def test_quantised_linear_maps(kind: str) -> None:
    encoder = make(kind).eval()
    expected = run(encoder)
    assert replace(encoder.tower, (nn.Linear,), Quantised)
    with torch.no_grad():
        error = (run(encoder) - expected).norm() / expected.norm()
    assert 0 < error < 0.05


@pytest.mark.parametrize('kind', KINDS)
def test_torchs_own_attention_in_the_place_of_ours(kind: str) -> None:
    """A replacement gets the call of torch's module, with the mask."""
    encoder = make(kind)
    expected = run(encoder)

    def plain(part: CLIPAttention) -> nn.Module:
        made = nn.MultiheadAttention(
            part.embed_dim, part.num_heads, batch_first=True
        )
        made.load_state_dict(part.state_dict())
        return made

    assert replace(encoder.tower, (CLIPAttention,), plain)
    torch.testing.assert_close(run(encoder), expected)


def test_other_attention_than_self_attention_is_refused() -> None:
    attention = make('text').tower.transformer.resblocks[0].attn
    tokens = torch.zeros(1, 2, 64)
    with pytest.raises(ValueError, match='one tensor as query, key and'):
        attention(tokens, tokens.clone(), tokens)
    with pytest.raises(ValueError, match='need_weights=True'):
        attention(tokens, tokens, tokens, need_weights=True)


TARGETS: dict[str, dict[str, Any]] = {
    'all-linear': dict(target_modules='all-linear'),
    'attention': dict(target_modules=['attn']),
    'attention and network': dict(target_modules=['attn', 'c_fc', 'c_proj']),
    'parameter': dict(
        target_modules=['out_proj', 'c_fc', 'c_proj'],
        target_parameters=['attn.in_proj_weight'],
    ),
    'embeddings': dict(target_modules=['conv1', 'token_embedding', 'c_fc']),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('targets', mostly_nightly(TARGETS, 'parameter'))
def test_peft_reaches_what_it_targets(kind: str, targets: str) -> None:
    peft = pytest.importorskip('peft')
    encoder = make(kind)
    before = run(encoder).detach()
    config = peft.LoraConfig(r=2, **TARGETS[targets])
    peft.inject_adapter_in_model(config, encoder)
    torch.testing.assert_close(run(encoder), before)
    lora = {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if 'lora_' in name
    }
    assert lora
    torch.manual_seed(2)
    for parameter in lora.values():
        nn.init.normal_(parameter, std=0.1)
    for part in encoder.modules():  # one update alone has an effect, too
        if isinstance(part, peft.tuners.lora.LoraLayer):
            assert not torch.allclose(run(encoder), before)
    run(encoder).square().sum().backward()
    for name, parameter in lora.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(
        parameter.grad is None
        for name, parameter in encoder.named_parameters()
        if 'lora_' not in name
    )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('checkpointing', [False, True])
def test_lora_option_trains_every_linear_map(
    kind: str, checkpointing: bool
) -> None:
    pytest.importorskip('peft')
    plain = make(kind)
    encoder = make(
        kind,
        lora=dict(r=2, lora_alpha=4),
        gradient_checkpointing=checkpointing,
    ).train()
    assert torch.equal(run(encoder), run(plain))
    learnt = {k: v for k, v in encoder.named_parameters() if v.requires_grad}
    assert len(learnt) == 2 * MAPS * num_blocks(encoder)
    assert all('lora_' in name for name in learnt)
    frozen = {
        name: value.clone()
        for name, value in encoder.state_dict().items()
        if 'lora_' not in name
    }
    target = run(encoder).detach() + 1
    optimizer = torch.optim.Adam(learnt.values(), 1e-2)
    losses = []
    for _ in range(5):
        loss = (run(encoder) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    for name, parameter in learnt.items():
        assert parameter.grad.abs().sum() > 0, name
    state = encoder.state_dict()
    for name, value in frozen.items():  # to the bit, after all calls
        assert torch.equal(state[name], value), name


def test_lora_starts_from_a_checkpoint_without_it() -> None:
    pytest.importorskip('peft')
    plain = make('video')
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(1.1)
    encoder = make('video', lora=dict(r=2))
    missing, unexpected = encoder.load_state_dict(
        plain.state_dict(), strict=False
    )
    assert all('lora_' in name for name in missing)
    assert len(missing) == 2 * MAPS * num_blocks(encoder)
    assert unexpected == []
    assert torch.equal(run(encoder), run(plain))
    other = copy.deepcopy(make('video', lora=dict(r=2)))
    other.load_state_dict(encoder.state_dict())  # complete, so strict
    assert torch.equal(run(other), run(plain))


def test_lora_settings_that_do_not_fit() -> None:
    pytest.importorskip('peft')
    for lora, message in (
        (dict(rank=2), "lora={'rank': 2} must be fields of peft"),
        (dict(target_modules=['nothing']), 'not found in the base model'),
        (dict(target_modules=['attn']), r"attn\.in_proj_weight' in"),
    ):
        with pytest.raises(ValueError, match=message):
            make('text', lora=lora)


def test_lora_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'peft', None)
    with pytest.raises(ImportError, match=r"eaglenet_mm\[lora\]'"):
        make('text', lora=dict(r=2))


@pytest.mark.parametrize('kind', KINDS)
def test_parameters_keep_their_order(kind: str) -> None:
    """Averages (EMA) go by the order, of a copy that is never called."""
    pytest.importorskip('peft')
    encoder = make(kind, lora=dict(r=2))
    average = copy.deepcopy(encoder)
    run(encoder)
    names = [name for name, _ in encoder.named_parameters()]
    assert names == [name for name, _ in average.named_parameters()]
