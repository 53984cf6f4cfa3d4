"""Encoders with random weights are named, and rates at which they stay so."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from eaglenet_mm.engine.hooks import StartWeightsHook, start_weights_hook
from eaglenet_mm.registry import MODELS
from tests.models.tiny import TEXT_ENCODER, VIDEO_ENCODER

VIDEO = dict(type='RegisteredEncoder', image_size=32)
BERT = dict(
    model_type='bert',
    hidden_size=16,
    vocab_size=20,
    num_attention_heads=2,
    num_hidden_layers=1,
    intermediate_size=16,
)
HUGGING_FACE = dict(type='HuggingFaceTextEncoder', model=BERT)
TIMM = dict(VIDEO, backbone=dict(type='timm.resnet10t'))
MMACTION = dict(VIDEO, backbone=dict(type='mmaction.ResNet', depth=18))
OPEN_CLIP = dict(
    type='open_clip',
    arch=dict(TEXT_ENCODER['arch'], **VIDEO_ENCODER['arch']),
)
#: A setting that names weights, which nothing reads here.
NAMED = dict(init_cfg=dict(type='Pretrained', checkpoint='x.pth'))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def note(text: str, logger: str, level: int) -> None:
        assert (logger, level) == ('current', logging.WARNING)
        found.append(text)

    monkeypatch.setattr(start_weights_hook, 'print_log', note)
    return found


def runner_of(
    text: dict, video: dict, lr: float = 1e-3, names: bool = False
) -> Any:
    model = nn.Module()
    settings = dict(text_encoder=text, video_encoder=video)
    for name, part in settings.items():
        setattr(model, name, MODELS.build(part))
    if names:
        settings = {name: part | NAMED for name, part in settings.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return SimpleNamespace(
        model=model,
        cfg=Config(dict(model=settings)),
        optim_wrapper=OptimWrapper(optimizer),
    )


def asking(settings: dict) -> dict:
    """The settings with the word that random weights are meant."""
    if 'backbone' in settings:
        return settings | dict(
            backbone=dict(settings['backbone'], pretrained=False)
        )
    return dict(settings, pretrained=False)


KINDS = [
    (TEXT_ENCODER, VIDEO_ENCODER, 'pretrained', 'pretrained'),
    (HUGGING_FACE, TIMM, 'model', 'backbone.pretrained'),
    (HUGGING_FACE, MMACTION, 'model', 'checkpoint'),
    (
        dict(type='RegisteredTextEncoder', backbone=OPEN_CLIP),
        dict(type='RegisteredEncoder', backbone=OPEN_CLIP),
        'backbone.pretrained',
        'backbone.pretrained',
    ),
]


@pytest.mark.parametrize(('text', 'video', 'text_key', 'video_key'), KINDS)
def test_each_encoder_without_weights_is_named(
    lines: list[str], text: dict, video: dict, text_key: str, video_key: str
) -> None:
    runner = runner_of(text, video)
    StartWeightsHook().before_train(runner)
    assert len(lines) == 2
    assert f'model.text_encoder.{text_key}' in lines[0]
    assert f'model.video_encoder.{video_key}' in lines[1]
    assert all('pretrained=False' in line for line in lines)
    lines.clear()
    StartWeightsHook().before_train(runner_of(asking(text), asking(video)))
    assert not lines
    StartWeightsHook().before_train(runner_of(text, video, names=True))
    assert not lines


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_what_a_checkpoint_fills_is_not_named(
    lines: list[str], prefix: str
) -> None:
    runner = runner_of(TEXT_ENCODER, VIDEO_ENCODER, lr=1e-7)
    state = {
        f'{prefix}{key}': value
        for key, value in runner.model.state_dict().items()
    }
    hook = StartWeightsHook()
    hook.after_load_checkpoint(runner, dict(state_dict=state))
    hook.before_train(runner)
    hook.before_test(runner)
    assert not lines
    part = {key: x for key, x in state.items() if 'video_encoder' in key}
    hook.after_load_checkpoint(runner, part)  # bare weights
    hook.before_test(runner)
    (line,) = lines
    assert 'model.text_encoder.pretrained' in line


def test_a_test_names_those_that_were_meant_too(lines: list[str]) -> None:
    runner = runner_of(asking(TEXT_ENCODER), asking(VIDEO_ENCODER))
    StartWeightsHook().before_test(runner)
    assert len(lines) == 2
    assert 'mean nothing' in lines[0]
    assert 'pretrained=False' not in lines[0]


def test_random_weights_at_a_rate_of_pretrained_ones(
    lines: list[str],
) -> None:
    runner = runner_of(asking(TEXT_ENCODER), asking(VIDEO_ENCODER), lr=1e-7)
    for parameter in runner.model.text_encoder.parameters():
        parameter.requires_grad_(False)
    StartWeightsHook().before_train(runner)
    (line,) = lines
    assert 'video_encoder.tower.' in line
    assert '1e-07' in line
    lines.clear()
    # a warm-up begins near 0
    (group,) = runner.optim_wrapper.optimizer.param_groups
    group['initial_lr'] = 1e-4
    StartWeightsHook().before_train(runner)
    assert not lines


def test_a_new_layer_at_a_rate_of_pretrained_weights(
    lines: list[str],
) -> None:
    runner = runner_of(
        *(dict(HUGGING_FACE, embed_dim=8), dict(TIMM, embed_dim=8)),
        lr=1e-6,
        names=True,
    )
    runner.optim_wrapper = OptimWrapperDict(both=runner.optim_wrapper)
    StartWeightsHook().before_train(runner)
    assert len(lines) == 2
    for line, part in zip(lines, ('text', 'video'), strict=True):
        assert line.startswith(f'2 parameters of {part}_encoder ')
        assert f'{part}_encoder.projection.weight' in line
    lines.clear()
    hook = StartWeightsHook()
    hook.after_load_checkpoint(runner, runner.model.state_dict())
    hook.before_train(runner)
    assert not lines


def test_models_of_others_are_left_alone(lines: list[str]) -> None:
    runner = SimpleNamespace(
        model=nn.Linear(1, 1),
        cfg=Config(dict(model=dict(type='Mine'))),
        optim_wrapper=OptimWrapper(
            torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1e-7)
        ),
    )
    StartWeightsHook().before_train(runner)
    StartWeightsHook().before_test(runner)
    assert not lines
