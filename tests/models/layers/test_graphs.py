"""Both graphs: masks, sizes, and the backward pass that is written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eaglenet_mm.models.layers import (
    PlainGraph,
    RelationalGraph,
    RelationalGraphLayer,
    Workspace,
    build_graph,
)
from eaglenet_mm.models.layers.relational_graph import mean_over_frames
from eaglenet_mm.models.layers.relational_messages import MessageOptions
from tests.models.tiny import nightly

WIDTH = 8


GRAPHS = {
    'rgat': lambda **options: RelationalGraph(WIDTH, **options),
    'gat': lambda **options: PlainGraph(WIDTH, **options),
    'gat v2': lambda **options: PlainGraph(WIDTH, version=2, **options),
}


def nodes(texts: int = 2, videos: int = 3, count: int = 4, frames: int = 5):
    return (
        torch.randn(videos, texts, count, WIDTH, dtype=torch.float64),
        torch.randn(videos, frames, WIDTH, dtype=torch.float64),
    )


def run(
    graph: nn.Module,
    text: torch.Tensor,
    frames: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    state = graph.prepare_frames(frames, mask)
    return graph(text, None, None, state, frame_mask=mask)


@pytest.mark.parametrize('frames', [3, 9], ids=['few frames', 'many frames'])
@pytest.mark.parametrize('masked', [False, True])
def test_fast_layer_is_the_plain_one(frames: int, masked: bool) -> None:
    """Nodes and the gradients of everything, with dropout and a sentence."""
    layer = RelationalGraphLayer(WIDTH, 2, 0.1).double()
    noise, frame_nodes = nodes(frames=frames)
    sentence = torch.randn(2, WIDTH, dtype=torch.float64)
    radius = torch.rand(3, 2, WIDTH, dtype=torch.float64) + 0.5
    mask = torch.ones(3, frames, dtype=torch.bool)
    mask[1, -1] = False
    mask = mask if masked else None
    drops = [
        (torch.rand(3, 2, 2, count, 4) > 0.5).double() * 2
        for count in (5, frames)
    ]

    def fast(sentence, radius, frame_nodes):
        options = MessageOptions(0.1, 0.5, Workspace(), reuse=False)
        out = layer(
            noise, radius, layer.prepare_text(sentence),
            layer.prepare_frames(frame_nodes, mask), layer.fold(frames > 4),
            mask, (None, None), tuple(drops), options,
        )  # fmt: skip
        return [x.unflatten(1, (3, 2)).movedim(0, 2) for x in out]

    def plain(sentence, radius, frame_nodes):
        spread = nn.functional.pad(noise * radius[:, :, None], (0, 0, 1, 0))
        texts = sentence[:, None] + spread  # (Bv, Bt, T, D)
        pairs = frame_nodes.repeat_interleave(2, dim=0)
        own = None if mask is None else mask.repeat_interleave(2, dim=0)
        out = layer.plain(texts.flatten(0, 1), pairs, own)
        split = [
            x.unflatten(0, (3, 2)).unflatten(-1, (2, 4)).transpose(2, 3)
            for x in out
        ]  # (Bv, Bt, H, N, O)
        return [x.relu() * drop for x, drop in zip(split, drops, strict=True)]

    inputs = [
        x.requires_grad_()
        for x in (sentence, radius, frame_nodes, *layer.parameters())
    ]
    got, expected = fast(*inputs[:3]), plain(*inputs[:3])
    weights = [torch.randn_like(x) for x in got]
    torch.testing.assert_close(got, expected)
    gradients = [
        torch.autograd.grad(
            sum((x * w).sum() for x, w in zip(out, weights, strict=True)),
            inputs,
        )
        for out in (got, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('frames', [3, nightly(9)])
@pytest.mark.parametrize('layers', [nightly(1), 2, nightly(3)])
@pytest.mark.parametrize('name', GRAPHS)
def test_displacements_are_nodes_taken_apart(
    name: str, layers: int, frames: int
) -> None:
    """A sentence and displacements, or the text nodes as they are."""
    graph = GRAPHS[name](num_layers=layers).double()
    spread, frame_nodes = nodes(frames=frames)
    sentence = torch.randn(2, WIDTH, dtype=torch.float64)
    whole = sentence.unsqueeze(1) + nn.functional.pad(spread, (0, 0, 1, 0))
    state = graph.prepare_frames(frame_nodes, None)
    radius = torch.rand(3, 2, WIDTH, dtype=torch.float64) + 0.5
    noise = spread / radius.unsqueeze(2)
    got = graph(noise, radius, graph.prepare_text(sentence), state)
    torch.testing.assert_close(got, run(graph, whole, frame_nodes))


def messages(
    frames: int, masked: bool, drops: bool, sentence: bool, last: bool
):
    """Inputs of a layer, and the messages as a function of them."""
    torch.manual_seed(0)
    graph = RelationalGraph(WIDTH, num_heads=2).double()
    layer = graph.hidden[0]
    spread, frame_nodes = nodes(texts=2, videos=2, count=3, frames=frames)
    text = torch.randn(2, WIDTH, dtype=torch.float64)
    mask = torch.ones(2, frames, dtype=torch.bool)
    mask[0, -1] = False
    masks: tuple = (None, None)
    if drops:
        shape = (2, 2, 2, 3 + sentence, 4), (2, 2, 2, frames, 4)
        masks = tuple((torch.rand(x) > 0.5).double() / 0.5 for x in shape)

    left = torch.randn(2, 4, 2, dtype=torch.float64)
    right = torch.randn(2, 4, 2, dtype=torch.float64)

    noise = torch.randn(2, 2, 3, WIDTH, dtype=torch.float64)

    def function(given, text, frame_nodes, left, right, *parameters):
        del parameters  # gradcheck moves them in place
        frame_mask = mask if masked else None
        return layer(
            noise if sentence else given,
            given if sentence else None,
            layer.prepare_text(text) if sentence else None,
            layer.prepare_frames(frame_nodes, frame_mask),
            layer.fold(frames > 3),
            frame_mask,
            (left, right) if last else (None, None),
            masks,
            MessageOptions(0.1, 0.5, Workspace(), reuse=False),
        )

    given = noise[:, :, 0].clone() if sentence else spread
    inputs = [given, text, frame_nodes, left, right]
    return layer, function, [x.requires_grad_() for x in inputs]


@pytest.mark.parametrize('frames', [2, 4], ids=['few frames', 'many frames'])
@pytest.mark.parametrize('masked', [nightly(False), True])
@pytest.mark.parametrize('drops', [nightly(False), True])
@pytest.mark.parametrize('sentence', [False, True])
@pytest.mark.parametrize('last', [nightly(False), True])
def test_backward_pass_is_the_derivative(
    frames: int, masked: bool, drops: bool, sentence: bool, last: bool
) -> None:
    layer, function, inputs = messages(frames, masked, drops, sentence, last)
    parameters = list(layer.parameters())
    assert torch.autograd.gradcheck(
        function, (*inputs, *parameters), fast_mode=True
    )


def test_memory_taken_up_again_changes_nothing() -> None:
    graph = RelationalGraph(WIDTH).double()
    spread, frame_nodes = nodes()
    text = graph.prepare_text(torch.randn(2, WIDTH, dtype=torch.float64))
    state = graph.prepare_frames(frame_nodes, None)
    radius = torch.rand(3, 2, WIDTH, dtype=torch.float64)
    expected = graph(spread, radius, text, state)
    space = Workspace()
    with torch.no_grad():
        for _ in range(2):
            got = graph(spread, radius, text, state, workspace=space)
            torch.testing.assert_close(got, expected)
            graph(spread * 2, radius, text, state, workspace=space)


@pytest.mark.parametrize('layers', [1, nightly(2), 3])
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


def test_mean_over_frames_in_loops() -> None:
    logits = torch.randn(2, 1, 3, 4, 5)
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    got = mean_over_frames(logits, mask)
    for video in range(2):
        real = [f for f in range(4) if mask[video, f]]
        for node in range(5):
            values = [
                logits[video, 0, head, f, node]
                for head in range(3)
                for f in real
            ]
            torch.testing.assert_close(
                got[video, 0, node], sum(values) / len(values)
            )


@pytest.mark.parametrize('name', GRAPHS)
def test_no_parameter_is_idle(name: str) -> None:
    graph = GRAPHS[name](num_layers=3).double()
    # v2 adds the row's logit to every column, where the softmax drops it
    run(graph, *nodes()).square().sum().backward()
    assert [k for k, p in graph.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('path', ['', 'eaglenet_mm.models.layers.'])
def test_graphs_by_class(path: str) -> None:
    for name, kind in (('rgat', RelationalGraph), ('gat', PlainGraph)):
        given = f'{path}{kind.__name__}' if path else kind
        for graph in (name, given):
            assert type(build_graph(WIDTH, type=graph)) is kind
    with pytest.raises(ValueError, match=r"\['gat', 'rgat'\], but is 'x'"):
        build_graph(WIDTH, type='x')
