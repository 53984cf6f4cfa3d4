from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from eaglenet_mm.engine.optimizers import (
    BertAdam,
    PatternOptimWrapperConstructor,
    pattern_constructor,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = nn.Linear(2, 2)
        self.video_encoder = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.head = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)


RULES = [
    dict(pattern=r'^(text|video)_encoder\.', lr_mult=1e-3),
    dict(pattern=r'bias$', decay_mult=0.0),
    dict(pattern=r'^text_encoder', lr_mult=0.5),
]


def build(rules, **optimizer):
    cfg = dict(
        optimizer=dict(
            type='BertAdam', **{'lr': 1e-4, 'weight_decay': 0.2, **optimizer}
        ),
        constructor='PatternOptimWrapperConstructor',
    )
    if rules is not None:
        cfg['paramwise_cfg'] = dict(rules=rules)
    model = Model()
    return model, build_optim_wrapper(model, cfg)


def test_matching_rules_multiply_and_groups_are_merged():
    model, wrapper = build(RULES)
    assert isinstance(wrapper.optimizer, BertAdam)
    settings = {
        name: (group['lr'], group['weight_decay'])
        for name, param in model.named_parameters()
        for group in wrapper.optimizer.param_groups
        if any(param is member for member in group['params'])
    }
    expected = {
        'text_encoder.weight': (5e-8, 0.2),
        'text_encoder.bias': (5e-8, 0.0),
        'video_encoder.0.weight': (1e-7, 0.2),
        'video_encoder.0.bias': (1e-7, 0.0),
        'video_encoder.1.weight': (1e-7, 0.2),
        'video_encoder.1.bias': (1e-7, 0.0),
        'head.weight': (1e-4, 0.2),
        'head.bias': (1e-4, 0.0),
    }
    assert settings.keys() == expected.keys()
    for name, values in expected.items():
        assert settings[name] == pytest.approx(values)
    assert len(wrapper.optimizer.param_groups) == 6


def test_one_line_is_logged_for_each_group(monkeypatch):
    lines = []
    monkeypatch.setattr(
        pattern_constructor,
        'print_log',
        lambda text, logger: lines.append(text),
    )
    build(RULES)
    assert len(lines) == 6
    assert lines[2] == (
        'Parameter group 2: 2 tensors, 6 values, lr 1e-07, weight_decay 0.2'
    )


def test_without_rules_frozen_parameters_are_left_out():
    _, wrapper = build(None)
    (group,) = wrapper.optimizer.param_groups
    assert len(group['params']) == 8
    assert group['lr'] == 1e-4


def test_a_frozen_parameter_counts_as_matched():
    _, wrapper = build([dict(pattern='^frozen$', lr_mult=0.1)])
    assert len(wrapper.optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ('rules', 'message'),
    [
        (
            [dict(pattern='^text_encodr', lr_mult=2)],
            r"'\^text_encodr' matches none of the model's 9 parameters. "
            r"Nearest names: \['text_encoder",
        ),
        ([dict(pattern='a(', lr_mult=2)], r"'a\(' is no regular expression"),
        ([dict(lr_mult=2)], r"Rule 0 needs 'pattern' .* \['lr_mult'\]"),
        (
            [dict(pattern='head', lr=2)],
            r"may have 'lr_mult' .* has \['lr', 'pattern'\]",
        ),
    ],
)
def test_bad_rules(rules, message):
    with pytest.raises(ValueError, match=message):
        build(rules)


def test_unknown_key_beside_the_rules():
    cfg = dict(optimizer=dict(type='BertAdam', lr=1.0))
    with pytest.raises(ValueError, match=r"but got \['custom_keys'\]"):
        PatternOptimWrapperConstructor(cfg, dict(custom_keys={}))


def test_nothing_to_multiply():
    cfg = dict(optimizer=dict(type='BertAdam', lr=1.0))
    rules = dict(rules=[dict(pattern='head', decay_mult=0.0)])
    with pytest.raises(ValueError, match=r"'decay_mult'.* no 'weight_decay'"):
        PatternOptimWrapperConstructor(cfg, rules)
