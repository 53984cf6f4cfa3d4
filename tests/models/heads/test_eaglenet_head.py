"""Scores, losses and refusals of the EagleNet head."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.models.heads.eaglenet_head import CHUNK_BYTES
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.precision import ERRORS, check_against_float64
from tests.models.tiny import (
    FRAMES,
    WIDTH,
    eaglenet_head,
    nightly,
    random_features,
)
from tools.benchmark.reference.brute_force import score_pairs
from tools.benchmark.reference.release_weights import release_weights

GRAPHS = [
    dict(type='rgat', num_layers=1),
    dict(type='rgat', num_layers=2),
    dict(type='rgat', num_layers=3),
    dict(type='gat', num_layers=1),
    dict(type='gat', num_layers=2),
    dict(type='gat', num_layers=3, version=2),
]


def build(**overrides: object) -> EagleNetHead:
    head = MODELS.build(eaglenet_head(**overrides)).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


@pytest.mark.parametrize('graph', GRAPHS, ids=str)
@pytest.mark.parametrize('frames', [FRAMES, nightly(9)])
@pytest.mark.parametrize('sizes', [nightly((1, 1)), (2, 7), nightly((5, 1))])
def test_scores_are_those_of_brute_force(
    graph: dict, frames: int, sizes: tuple[int, int]
) -> None:
    head = build(graph=graph, num_frames=frames, pooling=dict(num_heads=2))
    text, video = random_features(*sizes, frames=frames)
    pairs = sizes[0] * sizes[1]
    noise = head.noise_table.unsqueeze(1).expand(-1, pairs, -1)
    expected = score_pairs(
        text.embeds,
        video.frames,
        noise,
        release_weights(head),
        graph=graph['type'],
        layers=graph['num_layers'],
        version=graph.get('version', 1),
        pooling_heads=2,
    )['logits']
    got = head(text, video)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_no_option_changes_a_score() -> None:
    """To the last bit, in float32, whatever the memory budget."""
    text, video = random_features(40, 30, dtype=torch.float32)
    results = []
    for budget in (1, 10**6, 10**10):
        torch.manual_seed(0)
        head = build(memory_budget=budget).float()
        results.append(
            head.score_chunked(
                head.prepare_text(text), head.prepare_video(video)
            )
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_masked_scores_are_those_of_the_shorter_video() -> None:
    """Masking a last frame equals a head that never had it."""
    long = build(use_frame_mask=True)
    short = build(num_frames=FRAMES - 1)
    state = long.state_dict()
    state['frame_embedding'] = state['frame_embedding'][:-1]
    state['stochastic_text.radius.weight'] = state[
        'stochastic_text.radius.weight'
    ][:, :-1]
    for name in list(state):
        if name.startswith('loss_energy'):
            del state[name]
    short.load_state_dict(state, strict=False)
    text, video = random_features(3, 4)
    mask = torch.ones(4, FRAMES, dtype=torch.bool)
    mask[:, -1] = False
    torch.testing.assert_close(
        long(text, VideoFeatures(video.frames, mask)),
        short(text, VideoFeatures(video.frames[:, :-1], mask[:, :-1])),
    )


def test_reseed_draws_other_noise_and_back() -> None:
    head = build()
    text, video = random_features(3, 4)
    first = head(text, video)
    head.reseed(7)
    assert not torch.allclose(head(text, video), first)
    head.reseed(0)
    torch.testing.assert_close(head(text, video), first)


def test_pair_noise_is_fresh_for_pairs_and_calls() -> None:
    head = build(noise='pair')
    text, video = random_features(1, 1)
    texts = TextFeatures(text.embeds.repeat(2, 1))
    videos = video.index_select([0, 0])
    first, second = head(texts, videos), head(texts, videos)
    assert len(torch.cat([first, second]).flatten().unique()) == 8
    head.reseed(0)
    torch.testing.assert_close(head(texts, videos), first)


def test_noise_of_a_checkpoint_gives_way_to_a_seed_asked_for() -> None:
    trained = build(noise_seed=3)
    assert torch.equal(build(noise_seed=3).noise_table, trained.noise_table)
    for seed in (None, 3, 5):
        head = build(noise_seed=seed)
        own = head.noise_table.clone()
        head.load_state_dict(trained.state_dict())
        expected = trained.noise_table if seed is None else own
        assert torch.equal(head.noise_table, expected)


def test_losses_in_evaluation_mode_change_no_state() -> None:
    head = build().eval()
    text, video = random_features(3, 3)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    head.loss(text, video)
    for key, value in head.state_dict().items():
        assert torch.equal(value, before[key]), key


def kept_for_backward(batch: int, budget: int) -> int:
    """Numbers that a training step keeps outside its chunks."""
    alive: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.numel() >= alive.get(x.data_ptr(), x).numel():
            alive[x.data_ptr()] = x
        return x

    head = build(loss_energy=None, energy_support_weight=0.0).train()
    head.memory_budget = max(
        budget, batch * head.bytes_per_pair(training=True)
    )
    text, video = random_features(batch, batch)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        head.loss(text, video)
    return sum(x.numel() for x in alive.values())


def test_chunked_training_keeps_nothing_wide_for_each_pair() -> None:
    """What grows with the pairs is a few scores, not vectors of width D."""

    def numbers_a_pair(budget: int) -> float:
        six, twelve, more = (kept_for_backward(n, budget) for n in (6, 12, 24))
        return (more - twelve - 2 * (twelve - six)) / (24**2 - 12**2 - 216)

    assert numbers_a_pair(0) < WIDTH
    assert numbers_a_pair(10**9) > 10 * WIDTH


def test_no_candidates_leaves_the_sentence() -> None:
    head = build(num_candidates=0)
    text, video = random_features(2, 3)
    enriched, *_ = head.enrich_and_pool(
        head.prepare_text(text), head.prepare_video(video), head.noise_table
    )
    torch.testing.assert_close(enriched, text.embeds.expand(3, -1, -1))


@pytest.mark.parametrize('chunk', [1, 10**9], ids=['columns', 'whole'])
def test_training_chunks_give_the_same_losses_and_gradients(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept, computed again, and some of each."""
    monkeypatch.setitem(CHUNK_BYTES, 'cpu', chunk)
    text, video = random_features(4, 4)
    results = []
    for kept_columns in (10**3, 1, 3):
        torch.manual_seed(0)
        head = build().train()
        head.memory_budget = (
            4 * kept_columns * head.bytes_per_pair(training=True)
        )
        losses = head.loss(text, video)
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        results.append(
            (losses, {n: p.grad for n, p in head.named_parameters()})
        )
    for losses, gradients in results[1:]:
        for key, value in results[0][0].items():
            torch.testing.assert_close(losses[key], value)
        for key, value in results[0][1].items():
            torch.testing.assert_close(
                gradients[key], value, rtol=1e-7, atol=1e-12
            )


def test_a_budget_too_small_for_the_pairs_of_a_video() -> None:
    head = build(memory_budget=1000).train()
    text, video = random_features(4, 4)
    with pytest.raises(ValueError, match='memory_budget=1000 bytes is too sm'):
        head.loss(text, video)


@pytest.mark.parametrize('frames', [nightly(3), 12])
@pytest.mark.parametrize(
    'graph',
    [
        nightly(dict(num_layers=1)),
        dict(num_layers=2),
        nightly(dict(num_layers=3)),
        nightly(dict(type='gat', num_layers=1)),
        dict(type='gat'),
        nightly(dict(type='gat', num_layers=3)),
        nightly(dict(type='gat', version=2)),
    ],
    ids=str,
)
def test_bytes_of_a_pair_are_what_is_kept(graph: dict, frames: int) -> None:
    """Within a fifth, so that a budget means what it says."""
    head = MODELS.build(
        dict(
            type='EagleNetHead',
            embed_dim=64,
            num_frames=frames,
            num_candidates=8,
            graph=graph,
            loss_match=dict(type='PairwiseSigmoidLoss'),
        )
    ).train()
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    sizes = []
    for batch in (4, 8, 12):
        kept.clear()
        text, video = random_features(
            batch, batch, frames=frames, width=64, dtype=torch.float32
        )
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses = head.loss(text, video)
        sizes.append(sum(kept.values()))
        del losses
    # the second difference leaves what grows with the square of the batch
    measured = (sizes[2] - 2 * sizes[1] + sizes[0]) / 32
    assert 0.8 < head.bytes_per_pair(training=True) / measured < 1.25


def test_training_noise_follows_seed_and_step() -> None:
    def values(seed: int, steps: int) -> list[float]:
        torch.manual_seed(seed)
        options = dict(loss_energy=None, energy_support_weight=0.0)
        head = MODELS.build(eaglenet_head(**options))
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.fill_(0.1)
        head.train()
        text, video = random_features(3, 3, dtype=torch.float32)
        return [
            head.loss(text, video)['loss_match'].item() for _ in range(steps)
        ]

    first = values(1, 3)
    assert values(1, 3) == first
    assert len(set(first)) == 3
    assert values(2, 1)[0] != first[0]


def test_state_dict_without_noise_keeps_the_own() -> None:
    head = build()
    state = head.state_dict()
    own = head.noise_table.clone()
    for name in ('noise_table', 'random_key'):
        del state[name]
    head.load_state_dict(state)
    torch.testing.assert_close(head.noise_table, own)


def test_loss_names_and_weights() -> None:
    text, video = random_features(3, 3)
    torch.manual_seed(0)
    full = build().loss(text, video)
    assert set(full) == {
        'loss_match',
        'loss_support',
        'loss_energy',
        'loss_energy_support',
        'pos_score',
        'neg_score',
    }
    torch.manual_seed(0)
    half = build(support_weight=0.4).loss(text, video)
    torch.testing.assert_close(half['loss_support'] * 2, full['loss_support'])
    torch.manual_seed(0)
    plain = build(
        support_weight=0.0, loss_energy=None, energy_support_weight=0.0
    ).loss(text, video)
    assert set(plain) == {'loss_match', 'pos_score', 'neg_score'}


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (dict(noise='fresh'), "noise must be 'table' or 'pair'"),
        (dict(num_candidates=-1), 'cannot be negative, but is -1'),
        (dict(prior='laplace'), "prior must be one of .* but is 'laplace'"),
        (dict(graph=dict(type='gcn')), "graph.type must be .* but is 'gcn'"),
        (dict(graph=dict(num_layers=0)), 'num_layers=0'),
        (dict(graph=dict(num_heads=3)), 'multiple of num_heads=3'),
        (dict(graph=dict(negative_slope=-1.0)), 'negative_slope .*-1.0'),
        (dict(graph=dict(type='gat', version=3)), 'version must .* is 3'),
        (dict(pooling=dict(num_heads=3)), 'multiple of num_heads=3'),
        (dict(loss_energy=None), 'energy_support_weight=1.0'),
        (dict(memory_budget=0), 'positive number of bytes, but got 0'),
        (dict(memory_budget='1GB'), "number of bytes, but got '1GB'"),
        (dict(graph=dict(dropout=1.0)), 'below 1, but is 1.0'),
        (dict(pooling=dict(dropout=-0.5)), 'below 1, but is -0.5'),
    ],
)
def test_options_are_checked(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build(eaglenet_head(**overrides))


def test_unknown_option_names_the_class() -> None:
    with pytest.raises(TypeError, match='num_candidate'):
        MODELS.build(eaglenet_head(num_candidate=3))


def test_features_are_checked() -> None:
    head = build(use_frame_mask=True)
    text, video = random_features(2, 2)
    with pytest.raises(ValueError, match=r'num_frames=3, .*\(2, 4, 16\)'):
        head(text, random_features(2, 2, frames=4)[1])
    with pytest.raises(ValueError, match=r'embed_dim=16, .* 8 channels'):
        head(random_features(2, 2, width=8)[0], video)
    with pytest.raises(ValueError, match=r'one text per video.*3 texts and 2'):
        head.loss(random_features(3, 2)[0], video)
    with pytest.raises(ValueError, match=r'same width.*\(2, 8\)'):
        head.loss(random_features(2, 2, width=8)[0], video)
    empty = VideoFeatures(video.frames, torch.zeros(2, FRAMES).bool())
    with pytest.raises(ValueError, match='real frame of each video, but 2 '):
        head(text, empty)
    broken = video.frames.clone()
    broken[1, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='video features of 1 of 2 items'):
        head.loss(text, VideoFeatures(broken, video.frame_mask))
    without = build(loss_match=None)
    with pytest.raises(ValueError, match='EagleNetHead has no loss_match'):
        without.loss(text, video)


VARIANTS = {
    'recipe': {},
    'masked': dict(use_frame_mask=True),
    'one layer': dict(graph=dict(num_layers=1)),
    'three layers': dict(graph=dict(num_layers=3)),
    'gat': dict(graph=dict(type='gat')),
    'gat v2': dict(graph=dict(type='gat', version=2)),
}
OTHERS = list(VARIANTS)[1:]


@pytest.mark.parametrize('variant', ['recipe', *map(nightly, OTHERS)])
@pytest.mark.parametrize('dtype', ERRORS)
def test_error_against_float64(dtype: torch.dtype, variant: str) -> None:
    """Of scores, losses and gradients under autocast, and of float32."""

    def build_head() -> EagleNetHead:
        torch.manual_seed(0)
        return build(**VARIANTS[variant])

    check_against_float64(build_head, dtype, torch.device('cpu'))


@pytest.mark.parametrize('variant', ['recipe', *map(nightly, OTHERS)])
@pytest.mark.parametrize('sizes', [(0, 3), (3, 0), nightly((0, 0))])
def test_an_empty_side_gives_an_empty_matrix(
    sizes: tuple[int, int], variant: str
) -> None:
    head = build(**VARIANTS[variant])
    text, video = random_features(*sizes)
    assert head(text, video).shape == sizes
    chunked = head.score_chunked(
        head.prepare_text(text), head.prepare_video(video)
    )
    assert chunked.shape == sizes


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_head_in_half_precision_scores(dtype: torch.dtype) -> None:
    text, video = random_features(3, 4)
    head = build()
    expected = head(text, video)
    with torch.no_grad():
        got = head.to(dtype)(text.to(dtype), video.to(dtype))
    assert (got.double() - expected).abs().max() < 0.05
