"""Both graphs: masks, sizes, and which way round products are taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eaglenet_mm.models.layers import PlainGraph, RelationalGraph
from eaglenet_mm.models.layers.graph_attention import mean_over_frames

WIDTH = 8
GRAPHS = {
    'rgat': lambda **options: RelationalGraph(WIDTH, **options),
    'gat': lambda **options: PlainGraph(WIDTH, **options),
    'gat v2': lambda **options: PlainGraph(WIDTH, version=2, **options),
}


def nodes(texts: int = 2, videos: int = 3, count: int = 4, frames: int = 5):
    return (
        torch.randn(texts, videos, count, WIDTH, dtype=torch.float64),
        torch.randn(videos, frames, WIDTH, dtype=torch.float64),
    )


def run(
    graph: nn.Module,
    text: torch.Tensor,
    frames: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    return graph(text, frames, graph.prepare_frames(frames, mask), mask)


@pytest.mark.parametrize('layers', [1, 2, 3])
@pytest.mark.parametrize('name', GRAPHS)
def test_masked_frames_are_as_if_they_were_not_there(
    name: str, layers: int
) -> None:
    graph = GRAPHS[name](num_layers=layers).double()
    text, frames = nodes()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, -2:] = False
    expected = run(graph, text, frames[:, :3])
    torch.testing.assert_close(run(graph, text, frames, mask), expected)
    frames[:, -1] = 1e3
    torch.testing.assert_close(run(graph, text, frames, mask), expected)


@pytest.mark.parametrize('name', GRAPHS)
def test_candidates_may_come_in_any_order(name: str) -> None:
    graph = GRAPHS[name]().double()
    text, frames = nodes()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        run(graph, text[:, :, order], frames),
        run(graph, text, frames)[:, :, order],
    )


def test_candidates_reach_frames_the_same_before_and_after_projection() -> (
    None
):
    """More frames than candidates, and fewer, take different products."""
    layer = RelationalGraph(WIDTH).double().hidden[0]
    text, _ = nodes(count=4)
    attention = torch.rand(2, 3, 4, 9, 4, dtype=torch.float64)
    wide = layer._candidates_to_frames(attention, text)
    narrow = layer._candidates_to_frames(attention[..., :3, :], text)
    torch.testing.assert_close(wide[:, :, :3], narrow)


def test_mean_over_frames_in_loops() -> None:
    logits = torch.randn(1, 2, 3, 4, 5)
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    got = mean_over_frames(logits, mask)
    for video in range(2):
        real = [f for f in range(4) if mask[video, f]]
        for node in range(5):
            values = [
                logits[0, video, head, f, node]
                for head in range(3)
                for f in real
            ]
            torch.testing.assert_close(
                got[0, video, node], sum(values) / len(values)
            )


@pytest.mark.parametrize('name', GRAPHS)
def test_no_parameter_is_idle(name: str) -> None:
    graph = GRAPHS[name](num_layers=3).double()
    # v2 adds the row's logit to every column, where the softmax drops it
    run(graph, *nodes()).square().sum().backward()
    assert [k for k, p in graph.named_parameters() if p.grad is None] == []
