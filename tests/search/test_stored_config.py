"""A config inside of an index can ask for registered names alone."""

from __future__ import annotations

import json

import pytest

from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.stored_config import (
    from_plain,
    to_plain,
    without_weights,
)


def test_round_trip_through_json() -> None:
    config = dict(
        type='EagleNetHead',
        layers=(10, (11, None)),
        nested=[dict(type='mmaction.ResNet', depth=50, rate=0.5)],
        backbone=dict(type='timm.vit_base_patch16_clip_224.openai'),
        other=dict(type='open_clip.ViT-B-16-SigLIP'),
    )
    assert from_plain(json.loads(json.dumps(to_plain(config)))) == config


@pytest.mark.parametrize(
    'kind',
    ['os.system', 'antigravity', 'mmengine.load', 'mmaction.x', 'a.', ''],
)
def test_nothing_is_imported(kind: str) -> None:
    stored = dict(model=dict(parts=[dict(type=kind)]))
    with pytest.raises(VideoIndexError, match='is not registered here'):
        from_plain(stored)


def test_classes_of_pure_python_configs_become_names() -> None:
    from mmaction.models import ResNet

    from eaglenet_mm.models import EagleNetHead

    path = 'mmaction.models.backbones.ResNet'
    for kinds in ((EagleNetHead, ResNet), ('EagleNetHead', path)):
        config = dict(type=kinds[0], backbone=dict(type=kinds[1]))
        plain = json.loads(json.dumps(to_plain(config)))
        expected = dict(type='mmaction.ResNet')
        assert plain == dict(type='EagleNetHead', backbone=expected)
        assert from_plain(plain) == plain


def test_our_own_scope_is_left_out() -> None:
    inherited = dict(type='EagleNetHead', _scope_='eaglenet_mm')
    assert to_plain(inherited) == dict(type='EagleNetHead')


def test_objects_cannot_be_stored() -> None:
    with pytest.raises(VideoIndexError, match=r'class .*dict.* cannot store'):
        to_plain(dict(type=dict))


@pytest.mark.parametrize(
    'stored',
    [
        dict(type='EagleNetHead', _scope_='evil'),
        dict(arch='hf-hub:evil/x'),
        dict(init=dict(checkpoint='http://evil/x.pth')),
    ],
)
def test_nothing_is_fetched(stored: dict) -> None:
    with pytest.raises(VideoIndexError, match='--config'):
        from_plain(dict(model=stored))


def test_weights_are_left_out_at_every_depth() -> None:
    config = dict(a=dict(pretrained='x', b=[dict(init_cfg=1, c=2)]), d=(1,))
    assert without_weights(config) == dict(a=dict(b=[dict(c=2)]), d=(1,))
