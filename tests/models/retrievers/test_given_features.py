"""Heads that need words or patches, before encoders with and without."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from mmengine.model import BaseModule

from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures
from tests.models.encoders.stand_in_transformers import stand_in
from tests.models.encoders.tiny_backbones import ENCODERS
from tests.models.every_head import config_of
from tests.models.tiny import (
    TEXT_ENCODER,
    VIDEO_ENCODER,
    VOCABULARY,
    WIDTH,
    tiny_inputs,
)

HUGGING_FACE = dict(
    type='HuggingFaceTextEncoder',
    model=dict(
        model_type='bert',
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        pad_token_id=0,
    ),
)
OPEN_CLIP_TEXT = dict(
    type='RegisteredTextEncoder',
    backbone=dict(
        type='open_clip',
        arch=dict(embed_dim=WIDTH, text_cfg=TEXT_ENCODER['arch']['text_cfg']),
    ),
)
OPEN_CLIP_VIDEO = dict(
    type='RegisteredEncoder', embed_dim=WIDTH, **ENCODERS['open_clip vit']
)


def build(head: str, variant: str = '', **encoders: Any) -> TextVideoRetriever:
    parts = dict(text_encoder=TEXT_ENCODER, video_encoder=VIDEO_ENCODER)
    return TextVideoRetriever(
        **{**parts, **encoders}, head=config_of(head, variant)
    )


@pytest.mark.parametrize(
    ('head', 'encoders', 'sides', 'mend'),
    [
        (
            'TS2NetHead', {}, 'needs patches, but CLIPVideoEncoder returns',
            'set model.video_encoder.output_patches=True,',
        ),
        (
            'TS2NetHead', dict(video_encoder=OPEN_CLIP_VIDEO),
            'needs patches, but RegisteredEncoder returns',
            'model.video_encoder to an encoder that has output_patches=True',
        ),
        (
            'WTIHead', {}, 'needs tokens, but CLIPTextEncoder returns',
            'set model.text_encoder.output_tokens=True,',
        ),
        (
            'WTIHead', dict(text_encoder=HUGGING_FACE),
            'needs tokens, but HuggingFaceTextEncoder returns',
            'set model.text_encoder.output_tokens=True,',
        ),
        (
            'WTIHead', dict(text_encoder=OPEN_CLIP_TEXT),
            'needs tokens, but RegisteredTextEncoder returns',
            'model.text_encoder to an encoder that has output_tokens=True',
        ),
    ],
)  # fmt: skip
def test_refused_when_the_model_is_built(
    head: str,
    encoders: dict,
    sides: str,
    mend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    with pytest.raises(ValueError, match=f'{head} {sides} none.*{mend}'):
        build(head, **encoders)


def test_taken_where_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    tokens = dict(output_tokens=True)
    build('WTIHead', text_encoder={**TEXT_ENCODER, **tokens})
    build('WTIHead', text_encoder={**HUGGING_FACE, **tokens})
    build('WTIHead', 'sentence')  # it reads sentences
    patches = dict(output_patches=True)
    build('TS2NetHead', video_encoder={**VIDEO_ENCODER, **patches})
    build(
        'XPoolHead', text_encoder=OPEN_CLIP_TEXT, video_encoder=OPEN_CLIP_VIDEO
    )


def test_encoders_that_state_nothing_meet_the_first_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ForeignEncoder(BaseModule):
        def forward(self, token_ids: Any) -> TextFeatures:
            return TextFeatures(token_ids.float().repeat(1, 2))

    monkeypatch.setitem(MODELS.module_dict, 'ForeignEncoder', ForeignEncoder)
    model = build('WTIHead', text_encoder=dict(type='ForeignEncoder'))
    with pytest.raises(ValueError, match='WTIHead matches words'):
        model(tiny_inputs(3), mode='loss')
