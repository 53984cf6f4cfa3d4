from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from eaglenet_mm.engine.optimizers import BertAdam


def slow_step(params, grads, moments, *, lr, decay, max_norm):
    """The rule, value by value."""
    for place, (values, grad) in enumerate(zip(params, grads, strict=True)):
        norm = math.sqrt(sum(g * g for g in grad))
        factor = min(1.0, max_norm / (norm + 1e-6)) if max_norm else 1.0
        first, second = moments[place]
        for i, g in enumerate(grad):
            g *= factor
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.98 * second[i] + 0.02 * g * g
            update = first[i] / (math.sqrt(second[i]) + 1e-6)
            values[i] -= lr * (update + decay * values[i])


@pytest.mark.parametrize('max_norm', [1.0, 0.3, None, -1])
@pytest.mark.parametrize('decay', [0.0, 0.2])
def test_equals_the_rule(max_norm, decay):
    params = [nn.Parameter(torch.randn(n).double()) for n in (1, 3, 7)]
    slow = [param.tolist() for param in params]
    moments = [([0.0] * len(p), [0.0] * len(p)) for p in params]
    optimizer = BertAdam(
        params, lr=0.05, weight_decay=decay, max_grad_norm=max_norm
    )
    for _ in range(4):
        grads = [torch.randn_like(param) for param in params]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        optimizer.step()
        slow_step(
            slow,
            [grad.tolist() for grad in grads],
            moments,
            lr=0.05,
            decay=decay,
            max_norm=max_norm if max_norm and max_norm > 0 else None,
        )
    for param, expected in zip(params, slow, strict=True):
        torch.testing.assert_close(
            param.detach(), torch.tensor(expected).double()
        )


def test_small_gradients_are_not_enlarged():
    param = nn.Parameter(torch.zeros(2))
    param.grad = torch.tensor([0.3, 0.4])
    BertAdam([param], lr=0.1).step()
    assert param.grad.tolist() == pytest.approx([0.3, 0.4])


def test_parameters_without_gradient_stay():
    moved, kept = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = BertAdam([moved, kept], lr=0.1)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert kept.tolist() == [1, 1]
    assert kept not in optimizer.state
    assert (moved < 1).all()


def test_types_may_be_mixed():
    params = [
        nn.Parameter(torch.ones(3, dtype=dtype))
        for dtype in (torch.float16, torch.float32, torch.float64)
    ]
    optimizer = BertAdam(params, lr=0.1, weight_decay=0.0)
    for param in params:
        param.grad = torch.full_like(param, 0.1)
    optimizer.step()
    for param in params:
        state = optimizer.state[param]
        assert state['exp_avg'].dtype == param.dtype
        # m / sqrt(v) = 0.1 / sqrt(0.02), whatever the gradient
        expected = 1 - 0.1 * 0.1 / math.sqrt(0.02)
        assert param.tolist() == pytest.approx([expected] * 3, rel=2e-3)


def test_state_dict_resumes_exactly():
    def make():
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        return model, BertAdam(model.parameters(), lr=0.05)

    def train(model, optimizer, batches):
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            optimizer.step()

    batches = torch.randn(6, 2, 4)
    model, optimizer = make()
    train(model, optimizer, batches[:3])
    weights = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, batches[3:])
    resumed, other = make()
    resumed.load_state_dict(weights)
    other.load_state_dict(state)
    train(resumed, other, batches[3:])
    assert torch.equal(resumed.weight, model.weight)
    assert torch.equal(resumed.bias, model.bias)


def test_closure():
    param = nn.Parameter(torch.ones(1))
    optimizer = BertAdam([param], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert float(param) < 1


def test_sparse_gradients():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r'sparse one of shape \(5, 2\)'):
        BertAdam(embedding.parameters(), lr=0.1).step()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(lr=-1), "'lr' must be at least 0, but got -1"),
        (dict(lr=1, weight_decay=-2), "'weight_decay' .* got -2"),
        (dict(lr=1, eps=0), "'eps' must be above 0, but got 0"),
        (dict(lr=1, betas=(0.9, 1.0)), r"'betas' .* got \(0\.9, 1\.0\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        BertAdam([nn.Parameter(torch.zeros(1))], **options)
