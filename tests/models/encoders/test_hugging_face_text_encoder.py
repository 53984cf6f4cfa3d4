"""Language models of Hugging Face, real ones where transformers is there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.models import HuggingFaceTextEncoder
from eaglenet_mm.models.encoders import backbones
from eaglenet_mm.registry import MODELS
from tests.models.encoders.stand_in_transformers import stand_in

HAS_TRANSFORMERS = importlib.util.find_spec('transformers') is not None
VOCABULARY, WIDTH = 20, 16
BERT: dict[str, Any] = dict(
    model_type='bert',
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
    pad_token_id=0,
)
IDS = torch.tensor([[2, 7, 8, 3, 0, 0], [2, 9, 3, 0, 0, 0]])


@pytest.fixture(
    params=[
        'stand-in',
        pytest.param(
            'transformers',
            marks=pytest.mark.skipif(
                not HAS_TRANSFORMERS, reason='needs transformers'
            ),
        ),
    ]
)
def library(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    torch.manual_seed(2)
    if request.param == 'stand-in':
        monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    return request.param


def test_training(library: str) -> None:
    encoder = MODELS.build(
        dict(
            type='HuggingFaceTextEncoder',
            model=BERT,
            embed_dim=24,
            output_tokens=True,
        )
    )
    encoder.init_weights()
    encoder.train()
    text = encoder(IDS)
    assert encoder.embed_dim == 24
    assert text.embeds.shape == (2, 24)
    assert text.tokens.shape == (2, 6, 24)
    assert text.token_mask.tolist() == (IDS != 0).tolist()
    (text.embeds.square().sum() + text.tokens.square().sum()).backward()
    idle = [n for n, p in encoder.named_parameters() if not p.requires_grad]
    assert idle
    assert all('pooler' in name for name in idle)
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == (name in idle), name


@pytest.mark.parametrize('pooling', ['cls', 'mean', 'last'])
def test_pooling(library: str, pooling: str) -> None:
    encoder = HuggingFaceTextEncoder(
        BERT, pooling=pooling, output_tokens=True
    ).eval()
    assert encoder.embed_dim == WIDTH
    text = encoder(IDS)
    for row, length in enumerate((4, 3)):
        tokens = text.tokens[row, :length]
        expected = {
            'cls': tokens[0],
            'mean': tokens.mean(0),
            'last': tokens[-1],
        }[pooling]
        torch.testing.assert_close(text.embeds[row], expected)
    # padding has no influence
    shorter = encoder(IDS[:, :4])
    torch.testing.assert_close(shorter.embeds, text.embeds)


def test_padding_by_another_id(library: str) -> None:
    encoder = HuggingFaceTextEncoder(BERT, pad_id=5, output_tokens=True)
    assert encoder(torch.tensor([[2, 0, 5]])).token_mask.tolist() == [
        [True, True, False]
    ]


def test_frozen(library: str) -> None:
    encoder = HuggingFaceTextEncoder(BERT, 8, frozen=True).train()
    assert not encoder.model.training
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert trained == ['projection.weight', 'projection.bias']


def test_local_folder(library: str, tmp_path: Path) -> None:
    source = HuggingFaceTextEncoder(BERT).eval()
    if library == 'stand-in':
        (tmp_path / 'config.json').write_text(json.dumps(BERT))
        torch.save(source.model.state_dict(), tmp_path / 'weights.pth')
    else:
        source.model.save_pretrained(tmp_path)
    loaded = HuggingFaceTextEncoder(str(tmp_path))
    loaded.init_weights()
    torch.testing.assert_close(loaded.eval()(IDS).embeds, source(IDS).embeds)


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason='needs transformers')
@pytest.mark.parametrize(
    ('config', 'pooling'),
    [
        (
            dict(model_type='t5', vocab_size=20, d_model=16, d_kv=8, d_ff=16,
                 num_layers=1, num_heads=2),
            'mean',
        ),
        (
            dict(model_type='gpt2', vocab_size=20, n_embd=16, n_layer=1,
                 n_head=2, n_positions=12, bos_token_id=2, eos_token_id=3),
            'last',
        ),
        (
            dict(model_type='distilbert', vocab_size=20, dim=16, n_layers=1,
                 n_heads=2, hidden_dim=16, max_position_embeddings=12),
            'cls',
        ),
    ],
)  # fmt: skip
def test_other_models(config: dict, pooling: str) -> None:
    encoder = HuggingFaceTextEncoder(config, 8, pooling=pooling).train()
    encoder(IDS).embeds.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_bad_options(library: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'cls', 'mean'.*got 'max'"):
        HuggingFaceTextEncoder(BERT, pooling='max')
    with pytest.raises(FileNotFoundError, match="'no/bert' to be a local"):
        HuggingFaceTextEncoder('no/bert')
    with pytest.raises(ValueError, match=r"model_type.*only \['vocab_size'\]"):
        HuggingFaceTextEncoder(dict(vocab_size=3))
    encoder = HuggingFaceTextEncoder(BERT)
    with pytest.raises(ValueError, match=r'at most 12 tokens.*\(1, 13\)'):
        encoder(torch.ones(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match=r'\[0, 19\].*from 20 to 20'):
        encoder(torch.full((1, 2), 20))


def test_model_without_features_of_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    with pytest.raises(ValueError, match=r"last_hidden_state.*'bert' does"):
        HuggingFaceTextEncoder(dict(BERT, output='pooled'))


def test_missing_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"eaglenet_mm\[huggingface\]'"):
        HuggingFaceTextEncoder(BERT)
