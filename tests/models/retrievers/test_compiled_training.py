"""``compile=True`` of MMEngine: encoders compiled, the same numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from eaglenet_mm.models import TextVideoRetriever
from tests.models.every_head import CASES, config_of
from tests.models.tiny import FRAMES, WORDS, tiny_retriever
from tests.some_cases import mostly_nightly

PATTERN = dict(
    constructor='PatternOptimWrapperConstructor',
    paramwise_cfg=dict(
        rules=[dict(pattern=r'^(text|video)_encoder\.', lr_mult=0.1)]
    ),
    clip_grad=dict(max_norm=1.0),
)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def raw_batch(count: int, seed: int) -> dict[str, Any]:
    """As a loader gives it, before the preprocessor."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 18, (count, 1, WORDS), generator=generator)
    ids[..., 0], ids[..., -1] = 18, 19
    frames = [
        torch.randint(
            256, (FRAMES - i % 2, 3, 12, 12), generator=generator
        ).byte()
        for i in range(count)
    ]
    return dict(inputs=dict(frames=frames, token_ids=list(ids)))


def train(
    model: nn.Module,
    compile_step: Callable | None = None,
    optimizer: str = 'SGD',
    steps: int = 2,
) -> list[float]:
    """Take steps as MMEngine's Runner does, return the losses."""
    wrapper: OptimWrapper = build_optim_wrapper(
        model, dict(PATTERN, optimizer=dict(type=optimizer, lr=0.01))
    )
    step = model.train_step
    if compile_step is not None:
        step = compile_step(step)
    losses = []
    for number in range(steps):
        for group in wrapper.optimizer.param_groups:  # as in a warm-up
            group['lr'] *= number + 1
        torch.manual_seed(number)
        logs = step(raw_batch(5, number), wrapper)
        losses.append(logs['loss'].item())
    return losses


def with_eager(step: Callable) -> Callable:
    """Traced and run graph by graph, without the compiler's last stage."""
    return torch.compile(step, backend='eager')


def check_alike(model: TextVideoRetriever, **options: Any) -> None:
    model.train()
    compiled = copy.deepcopy(model)
    expected = train(model, **options)
    assert train(compiled, with_eager, **options) == expected
    for (name, one), (_, other) in zip(
        model.state_dict().items(), compiled.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
        assert one.isfinite().all(), name


@pytest.mark.parametrize(
    'case',
    mostly_nightly(
        CASES,
        *(('EagleNetHead', ''), ('MeanPoolingHead', 'transformer')),
        *(('TMASSHead', ''), ('TextProxyHead', '')),
    ),
)
def test_every_head_trains_alike(case: tuple[str, str]) -> None:
    check_alike(tiny_retriever(config_of(*case)))


@pytest.mark.parametrize('optimizer', mostly_nightly(['BertAdam', 'AdamW']))
def test_every_optimizer_steps_alike(optimizer: str) -> None:
    head = config_of('MeanPoolingHead', '')
    check_alike(tiny_retriever(head), optimizer=optimizer, steps=3)


@pytest.mark.parametrize('setting', mostly_nightly(['micro', 'checkpointing']))
def test_recomputed_encoders_train_alike(setting: str) -> None:
    model = tiny_retriever(config_of('MeanPoolingHead', ''))
    if setting == 'micro':
        model.encoder_micro_batch = 2
    else:
        model.text_encoder.gradient_checkpointing = True
        model.video_encoder.gradient_checkpointing = True
    check_alike(model)


def test_the_encoders_are_what_is_compiled() -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    model = tiny_retriever(config_of('TMASSHead', '')).train()
    train(model, lambda step: torch.compile(step, backend=count), steps=1)
    code = '\n'.join(graph.code for graph in graphs)
    blocks = sum(
        len(encoder.tower.transformer.resblocks)
        for encoder in (model.text_encoder, model.video_encoder)
    )
    assert code.count('scaled_dot_product_attention') == blocks
    assert 'isfinite' not in code  # of the head's checks
    assert not any('optimizer' in graph.code for graph in graphs)
