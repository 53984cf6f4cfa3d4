"""No model mixes tensors of a GPU with tensors of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.engine.optimizers import BertAdam
from eaglenet_mm.models.layers.frame_pooling import FramePooling
from tests.models.every_head import CASES, config_of
from tests.models.fake_card import (
    DeviceMismatchError,
    FakeCard,
    OnCard,
    unload,
)
from tests.models.test_data_preprocessor import frames, ids
from tests.models.tiny import eaglenet_head, tiny_inputs, tiny_retriever


def energy(**options: Any) -> dict:
    sampler = dict(num_steps=3, buffer_size=6)
    return dict(type='EnergyMatchingLoss', energy=options, sampler=sampler)


MODELS = {
    **{' '.join(case): config_of(*case) for case in CASES},
    'plain graph': eaglenet_head(graph=dict(type='gat', version=2)),
    'one layer': eaglenet_head(graph=dict(num_layers=1)),
    'three layers': eaglenet_head(graph=dict(num_layers=3), noise='pair'),
    'bilinear energy': eaglenet_head(
        prior='normal', loss_energy=energy(type='BilinearEnergy')
    ),
    'cosine energy': eaglenet_head(
        loss_energy=energy(type='CosineEnergy', reduction='max'),
        memory_budget=40_000,
    ),
}


@contextmanager
def card() -> Iterator[str]:
    # torch would lay out the weights of an LSTM for cuDNN
    with torch.backends.cudnn.flags(enabled=False), FakeCard():
        yield 'cuda'


def train_and_score(head: dict, device: str) -> dict[str, Any]:
    """Two steps in micro-batches, then scores and all that heads offer."""
    torch.manual_seed(0)
    model = tiny_retriever(head).to(device).train()
    model.encoder_micro_batch = 2
    optimizer = BertAdam(model.parameters(), lr=1e-4)
    for step in range(2):
        inputs = {k: v.to(device) for k, v in tiny_inputs(4, step).items()}
        losses = model(inputs, mode='loss')
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        optimizer.step()
    with torch.no_grad():
        text, video = model.eval()(inputs, mode='tensor')
        own = model.head
        own.reseed(3)
        scores = own.score_chunked(
            own.prepare_text(text), own.prepare_video(video)
        )
        vectors = own.shortlist_text(text), own.shortlist_video(video)
        weights = own.explain(text, video).frame_weights
    state = {key: value.detach() for key, value in model.state_dict().items()}
    losses = {key: value.detach() for key, value in losses.items()}
    return dict(
        scores=scores,
        losses=losses,
        vectors=list(vectors),
        weights=weights,
        state=state,
    )


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name, marks=() if name.endswith(' ') else pytest.mark.nightly
        )
        for name in MODELS  # by day the first variant of each head
    ],
)
def test_no_model_mixes_devices(name: str) -> None:
    """And what is written for a GPU alone gives the numbers of the CPU."""
    expected = train_and_score(MODELS[name], 'cpu')
    with card() as device:
        got = train_and_score(MODELS[name], device)
    assert isinstance(got['scores'], OnCard)
    torch.testing.assert_close(unload(got), expected)


def test_preprocessing_mixes_no_devices() -> None:
    inputs = dict(frames=[frames(3), frames(1)], token_ids=[ids(2), ids(1)])
    model = tiny_retriever()
    expected = model.data_preprocessor(dict(inputs=inputs))['inputs']
    with card() as device:
        preprocessor = model.data_preprocessor.to(device)
        got = preprocessor(dict(inputs=inputs))['inputs']
    assert all(isinstance(value, OnCard) for value in got.values())
    torch.testing.assert_close(unload(got), expected)


@pytest.mark.parametrize('name', ['XPoolHead ', 'EagleNetHead '])
def test_a_tensor_of_the_cpu_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FramePooling._weights

    def with_zeros(self: Any, text: Tensor, state: Any) -> Tensor:
        weights = original(self, text, state)
        return weights + torch.zeros(weights.shape[-1])

    monkeypatch.setattr(FramePooling, '_weights', with_zeros)
    with (
        card() as device,
        pytest.raises(DeviceMismatchError, match=r'aten::add .*\(3,\)'),
    ):
        train_and_score(MODELS[name], device)
