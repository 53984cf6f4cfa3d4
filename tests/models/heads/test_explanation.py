"""What heads say they looked at is what they looked at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eaglenet_mm.models.heads.base_pair_head import frame_cosines
from tests.models.every_head import CASES, build, features

every_head = pytest.mark.parametrize(
    ('name', 'variant'), CASES, ids=[' '.join(case) for case in CASES]
)


@every_head
@torch.no_grad()
def test_weights_of_frames(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(5, 4)
    state = {key: value.clone() for key, value in head.state_dict().items()}
    scores = head(text, video)
    found = head.explain(text, video)
    padded = ~video.frame_mask.expand(5, -1, -1)
    assert bool(padded.any())
    for kind, weights in found.frame_weights.items():
        assert weights.shape == (5, *video.frame_mask.shape)
        assert bool((weights[padded] == 0).all())
        if kind == 'cosine':
            assert float(weights.abs().max()) <= 1 + 1e-9
            continue
        assert float(weights.min()) >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 4).double())
    for weights in found.text_weights.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 4).double())
    # to look changes nothing
    assert torch.equal(head(text, video), scores)
    for key, value in head.state_dict().items():
        assert torch.equal(value, state[key])


@every_head
@torch.no_grad()
def test_a_pair_is_explained_alone(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(3, 4)
    whole = head.explain(text, video)
    alone = head.explain(
        text.index_select(slice(2, 3)), video.index_select(slice(1, 2))
    )
    for kind, weights in whole.frame_weights.items():
        torch.testing.assert_close(
            alone.frame_weights[kind][0, 0], weights[2, 1]
        )


@torch.no_grad()
def test_cosines_by_hand() -> None:
    text, video = features(3, 4)
    cosines = frame_cosines(text, video)
    for row in range(3):
        for column in range(4):
            for place in range(video.frames.shape[1]):
                expected = 0.0
                if video.frame_mask[column, place]:
                    expected = F.cosine_similarity(
                        text.embeds[row], video.frames[column, place], dim=0
                    )
                assert cosines[row, column, place] == pytest.approx(
                    float(expected)
                )


@pytest.mark.parametrize('name', ['XPoolHead', 'TMASSHead'])
@torch.no_grad()
def test_attention_times_values_is_what_is_pooled(name: str) -> None:
    head = build(name, '', num_heads=1)
    text, video = features(3, 4)
    state, pooling = head.prepare_video(video), head.pooling
    state = getattr(state, 'pooled_frames', state)
    attention = head.explain(text, video).frame_weights['attention']
    attended = torch.einsum('tvf,vfd->vtd', attention, state.values)
    a = pooling.norm2(attended + pooling.output.bias)
    pooled = pooling.norm3(a + pooling.linear(a))
    torch.testing.assert_close(pooled, pooling(text.embeds, state))


@torch.no_grad()
def test_beta_makes_the_enriched_text_of_eaglenet() -> None:
    head = build('EagleNetHead', '')
    text, video = features(3, 4)
    found = head.explain(text, video)
    beta = found.text_weights['beta']
    assert beta.shape == (3, 4, 1 + len(head.noise_table))
    radius = head.stochastic_text(
        text.embeds, head.prepare_video(video).unit_frames
    ).exp()
    candidates = text.embeds[:, None, None] + torch.einsum(
        'vtd,sd->tvsd', radius, head.noise_table
    )
    nodes = torch.cat(
        [text.embeds[:, None, None].expand(3, 4, 1, -1), candidates], dim=2
    )
    enriched = torch.einsum('tvs,tvsd->tvd', beta, nodes)
    torch.testing.assert_close(enriched, found.enriched)
    scores = F.cosine_similarity(found.enriched, found.pooled, dim=-1)
    torch.testing.assert_close(scores, head(text, video))


@torch.no_grad()
def test_noise_of_pairs_stays_where_it_was() -> None:
    head = build('EagleNetHead', '', noise='pair')
    text, video = features(3, 4)
    found = head.explain(text, video)
    assert head.noise_draws == 0
    assert torch.equal(found.enriched, head.explain(text, video).enriched)
    scores = F.cosine_similarity(found.enriched, found.pooled, dim=-1)
    torch.testing.assert_close(scores, head(text, video))  # the next noise
    assert head.noise_draws == 1
