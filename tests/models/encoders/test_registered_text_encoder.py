"""Text towers of open_clip beyond plain CLIP."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eaglenet_mm.models import RegisteredTextEncoder
from eaglenet_mm.registry import MODELS

LENGTH, VOCABULARY = 6, 30


def tower(**changes: Any) -> dict[str, Any]:
    """Config of a small text tower in the form of SigLIP's."""
    text = dict(
        context_length=LENGTH,
        vocab_size=VOCABULARY,
        width=16,
        heads=2,
        layers=1,
        no_causal_mask=True,
        proj_bias=True,
        pool_type='last',
    )
    arch = dict(embed_dim=12, text_cfg={**text, **changes})
    return dict(type='open_clip', arch=arch)


def ids(count: int = 3, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, length))


@pytest.mark.parametrize('width', [None, 20])
def test_features(width: int | None) -> None:
    encoder = MODELS.build(
        dict(type='RegisteredTextEncoder', backbone=tower(), embed_dim=width)
    ).train()
    assert encoder.embed_dim == (width or 12)
    assert encoder.context_length == LENGTH
    text = encoder(ids())
    assert text.embeds.shape == (3, width or 12)
    assert text.tokens is None
    text.embeds.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_it_is_the_tower_of_open_clip() -> None:
    encoder = RegisteredTextEncoder(tower()).eval()
    token_ids = ids()
    torch.testing.assert_close(
        encoder(token_ids).embeds, encoder.tower(token_ids)
    )


def test_frozen_tower() -> None:
    encoder = RegisteredTextEncoder(tower(), 8, frozen=True).train()
    assert not encoder.tower.training
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert trained == ['projection.weight', 'projection.bias']


def test_max_words() -> None:
    encoder = RegisteredTextEncoder(tower(), max_words=4)
    assert encoder(ids(length=4)).embeds.shape == (3, 12)
    with pytest.raises(ValueError, match=r'at most 4 tokens.*\(3, 6\)'):
        encoder(ids())


@pytest.mark.parametrize(
    ('backbone', 'error', 'message'),
    [
        (dict(type='mmaction.ResNet'), ValueError, "'mmaction.ResNet'. Use"),
        (dict(type='open_clip', arch=dict(embed_dim=3)), KeyError, 'text_cfg'),
        (tower(hf_model_name='roberta-base'), ValueError, 'roberta-base.*Hug'),
        (tower(width_=3), ValueError, 'no such text_cfg.*width_'),
    ],
)
def test_bad_towers(
    backbone: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RegisteredTextEncoder(backbone)
