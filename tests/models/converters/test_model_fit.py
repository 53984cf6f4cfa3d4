import pytest
import torch
from torch import nn

from eaglenet_mm.models.converters import (
    check_model_fit,
    read_model_options,
)
from eaglenet_mm.registry import MODELS
from tests.models.converters.release_checkpoint import MAX_WORDS, model_config


def make_model():
    model = nn.Module()
    model.linear = nn.Linear(2, 3)
    model.register_buffer('noise', torch.zeros(4))
    return model


def test_buffers_may_be_absent():
    model = make_model()
    state = {
        name: value
        for name, value in model.state_dict().items()
        if name != 'noise'
    }
    assert check_model_fit(state, model) == ['noise']
    assert check_model_fit(model.state_dict(), model) == []


def test_all_that_does_not_fit_is_named():
    state = {'linear.weight': torch.zeros(3, 5), 'other': torch.zeros(1)}
    with pytest.raises(
        ValueError,
        match=r'1 missing: linear\.bias; 1 unexpected: other; 1 of '
        r'another shape .*: linear\.weight \(3, 5\), \(3, 2\)',
    ):
        check_model_fit(state, make_model())


def test_fixed_loss_parameters_may_be_absent():
    model = nn.Module()
    model.head = nn.Module()
    model.head.loss_match = nn.Linear(1, 1)
    with pytest.raises(ValueError, match='2 missing'):
        check_model_fit({}, model)
    model.requires_grad_(False)
    names = ['head.loss_match.weight', 'head.loss_match.bias']
    assert check_model_fit({}, model) == names


@pytest.mark.parametrize('loss', ['sig', 'clip'])
@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_options_of_a_model(loss, num_layers):
    model = MODELS.build(model_config(loss=loss, num_layers=num_layers))
    assert read_model_options(model) == dict(
        num_graph_layers=num_layers, loss=loss, max_words=MAX_WORDS
    )
