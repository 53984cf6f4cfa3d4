"""What every registered head must hold, ours and those to come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eaglenet_mm.models.heads import EagleNetHead, XPoolHead, base_pair_head
from tests.models.every_head import (
    CASES,
    CONFIGS,
    build,
    features,
    registered_heads,
    train_once,
)
from tests.models.losses.test_same_video import (
    info_nce_in_loops,
    sigmoid_in_loops,
)
from tests.models.precision import check_half_precision
from tests.models.tiny import FRAMES

NIGHTLY = pytest.mark.nightly

every_head = pytest.mark.parametrize(
    ('name', 'variant'), CASES, ids=[' '.join(case) for case in CASES]
)
#: The first variant of each head by day, the others by night.
every_head_once = pytest.mark.parametrize(
    ('name', 'variant'),
    [
        pytest.param(
            name,
            variant,
            id=f'{name} {variant}',
            marks=() if variant == next(iter(CONFIGS[name])) else NIGHTLY,
        )
        for name, variant in CASES
    ],
)


def test_none_is_left_out() -> None:
    """A new head needs a config in ``tests/models/every_head.py``."""
    assert registered_heads() == set(CONFIGS)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@every_head
@torch.no_grad()
def test_a_score_depends_on_its_pair_alone(name: str, variant: str) -> None:
    """Permuted, dropped and added rows and columns; more of one side."""
    head = build(name, variant)
    text, video = features(7, 5)
    scores = head(text, video)
    assert scores.shape == (7, 5)
    assert scores.std() > 0
    rows = torch.tensor([6, 2, 0, 3, 5, 1, 4])
    columns = torch.tensor([3, 0, 4, 1, 2])
    moved = head(text.index_select(rows), video.index_select(columns))
    close(moved, scores[rows][:, columns], 1e-10)
    for row in (0, 6):
        for column in (1, 4):
            alone = head(
                text.index_select(slice(row, row + 1)),
                video.index_select(slice(column, column + 1)),
            )
            close(alone[0, 0], scores[row, column], 1e-10)
    more_text, more_video = features(2, 6, seed=9)
    added = head(
        type(text).cat([more_text, text]), type(video).cat([video, more_video])
    )
    assert added.shape == (9, 11)
    close(added[2:, :5], scores, 1e-10)


@every_head_once
def test_chunks_do_not_matter(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build(name, variant)
    text, video = features(9, 8)
    with torch.no_grad():
        states = head.prepare_text(text), head.prepare_video(video)
        expected = head.score(*states)
    for pairs in (1, 3, 10, 10**6):
        size = pairs * head.bytes_per_pair(training=False)
        monkeypatch.setattr(
            base_pair_head, 'EVALUATION_BYTES', dict(cpu=size, cuda=size)
        )
        chunked = head.score_chunked(*states)
        assert not chunked.requires_grad
        close(chunked, expected, 1e-10)
        assert torch.equal(chunked, head.score_chunked(*states))


@every_head
def test_nothing_beside_the_mask_matters(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(4, 4)
    expected = head(text, video)
    frames, tokens = video.frames.clone(), text.tokens.clone()
    patches = video.patches.clone()
    for values, mask in (
        (frames, video.frame_mask),
        (patches, video.frame_mask),
        (tokens, text.token_mask),
    ):
        assert bool((~mask).any())
        values[~mask] = 7 * torch.randn_like(values[~mask]) + 3
    close(
        head(
            replace(text, tokens=tokens),
            replace(video, frames=frames, patches=patches),
        ),
        expected,
        1e-10,
    )


@every_head
def test_every_parameter_is_used(name: str, variant: str) -> None:
    """DDP runs without searching for unused parameters."""
    head = build(name, variant).train()
    losses, gradients = train_once(head)
    assert all(bool(value.isfinite().all()) for value in losses.values())
    idle = [key for key, value in gradients.items() if value is None]
    # a head that reads words need not read the sentence
    reads_words = name == 'WTIHead' and variant != 'sentence'
    assert idle == (['text'] if reads_words else [])


@every_head_once
def test_the_memory_budget_changes_nothing(name: str, variant: str) -> None:
    whole = build(name, variant).train()
    pair = whole.bytes_per_pair(training=True)
    small = build(name, variant, memory_budget=6 * pair).train()
    small.load_state_dict(whole.state_dict())
    expected, gradients = train_once(whole)
    losses, others = train_once(small)
    for key, value in expected.items():
        close(losses[key], value, 1e-9)
    for key, value in gradients.items():
        if value is not None:
            close(others[key], value, 1e-8)


@every_head_once
@pytest.mark.parametrize(
    'same_video',
    [
        'ignore',
        pytest.param('negative', marks=NIGHTLY),
        pytest.param('positive', marks=NIGHTLY),
    ],
)
def test_every_loss_knows_the_same_video(
    name: str, variant: str, same_video: str
) -> None:
    """Those of support texts and proxies too, whatever the budget."""
    ids = torch.tensor([3, 1, 3, 0, 1, 3])
    same = ids[:, None] == ids
    for kind in ('PairwiseSigmoidLoss', 'InfoNCELoss'):
        config = dict(type=kind, same_video=same_video)
        head = build(name, variant, loss_match=config).train()
        small = build(
            name,
            variant,
            loss_match=config,
            memory_budget=6 * head.bytes_per_pair(training=True),
        ).train()
        small.load_state_dict(head.state_dict())
        matrices = []
        head.loss_match.register_forward_hook(
            lambda _loss, args, out, found=matrices: found.append(
                (args[0].detach(), out.detach())
            )
        )
        text, video = features(6, 6)
        video = replace(video, video_ids=ids)
        losses = head.loss(text, video)
        # three captions of one video, two of another
        assert float(losses['same_video_pairs']) == 4
        of_scores = ('loss_match', 'loss_support', 'loss_proxy')
        assert len(matrices) == sum(
            key in losses for key in (*of_scores, 'loss_positive')
        )
        scale = head.loss_match.log_scale.detach().exp()
        for scores, got in matrices:
            if kind == 'InfoNCELoss':
                expected = info_nce_in_loops(scores, same, same_video, scale)
            else:
                bias = head.loss_match.bias.detach()
                expected = sigmoid_in_loops(
                    scores, same, same_video, scale, bias
                )
            close(got, expected.squeeze(), 1e-8)
        for key, value in small.loss(text, video).items():
            close(value, losses[key], 1e-8)


def test_videos_without_ids_and_wrong_ones() -> None:
    loss = dict(type='PairwiseSigmoidLoss', same_video='ignore')
    head = build('MeanPoolingHead', '', loss_match=loss)
    text, video = features(3, 3)
    with pytest.raises(ValueError, match=r"same_video='ignore' needs to know"):
        head.loss(text, video)
    for ids in (torch.zeros(2, dtype=torch.int64), torch.zeros(3)):
        with pytest.raises(
            ValueError, match=r'one int64 per video, shape \(3,'
        ):
            head.loss(text, replace(video, video_ids=ids))
    head = build('MeanPoolingHead', '')
    assert 'same_video_pairs' not in head.loss(text, video)


def test_a_loss_of_another_package_gets_the_joint_matrix() -> None:
    head = build('MeanPoolingHead', '')
    head.loss_match = torch.nn.MSELoss()
    head.loss_match.forward = lambda scores: scores.trace()
    text, video = features(3, 3)
    losses = head.loss(text, replace(video, video_ids=torch.zeros(3).long()))
    close(losses['loss_match'], head(text, video).trace(), 1e-12)
    assert float(losses['same_video_pairs']) == 3


@every_head_once
def test_a_state_dict_restores_all(name: str, variant: str) -> None:
    head = build(name, variant)
    other = build(name, variant)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(1.5)
        if hasattr(other, 'noise_table'):
            other.noise_table.mul_(2)
    text, video = features(4, 3)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(text, video), head(text, video))
    train_once(head.train())
    train_once(other.train())
    for key, value in head.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@every_head_once
@pytest.mark.parametrize(
    'dtype',
    [torch.bfloat16, pytest.param(torch.float16, marks=NIGHTLY)],
)
def test_half_precision_comes_close(
    name: str, variant: str, dtype: torch.dtype
) -> None:
    if variant == 'lstm' and dtype is torch.float16:
        return  # CPUs have no such LSTM
    check_half_precision(name, variant, dtype, torch.device('cpu'))


@every_head_once
def test_training_repeats_itself(name: str, variant: str) -> None:
    one, other = (build(name, variant).train() for _ in range(2))
    other.load_state_dict(one.state_dict())
    for _ in range(2):
        torch.manual_seed(3)
        expected, gradients = train_once(one)
        torch.manual_seed(4)  # random numbers are the head's own
        losses, others = train_once(other)
        for key, value in expected.items():
            assert torch.equal(losses[key], value), key
        for key, value in gradients.items():
            assert value is None or torch.equal(others[key], value), key


@every_head_once
def test_evaluation_repeats_itself(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(4, 4)
    scores = head(text, video)
    torch.manual_seed(99)
    assert torch.equal(head(text, video), scores)
    head.reseed(5)
    reseeded = head(text, video)
    head.reseed(5)
    assert torch.equal(head(text, video), reseeded)


@every_head_once
def test_one_pair_and_empty_sides(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(3, 2)
    states = head.prepare_text(text), head.prepare_video(video)
    none = slice(0, 0)
    for one, other, shape in (
        (states[0].index_select(none), states[1], (0, 2)),
        (states[0], states[1].index_select(none), (3, 0)),
    ):
        assert head.score_chunked(one, other).shape == shape
    if 'decorrelation' in variant:
        return  # the deviation of one row is none
    losses, _ = train_once(head.train(), count=1)
    assert bool(losses['loss_match'].isfinite())
    assert 'neg_score' not in losses


@every_head_once
def test_shortlists_are_of_unit_length(name: str, variant: str) -> None:
    head = build(name, variant)
    text, video = features(4, 3)
    one, other = head.shortlist_text(text), head.shortlist_video(video)
    assert one.shape[0] == 4
    assert other.shape == (3, one.shape[1])
    for vectors in (one, other):
        assert bool((vectors.norm(dim=-1) <= 1 + 1e-9).all())


@every_head_once
def test_features_of_another_width_are_refused(
    name: str, variant: str
) -> None:
    if name == 'MeanPoolingHead':
        return  # it takes any
    head = build(name, variant)
    text, video = features(2, 2)
    with pytest.raises(ValueError, match=r'embed_dim=16'):
        head.prepare_text(replace(text, embeds=text.embeds[:, :12]))
    with pytest.raises(ValueError, match=r'embed_dim=16'):
        head.prepare_video(replace(video, frames=video.frames[..., :12]))
    with pytest.raises(
        ValueError, match=r'must have the same width|embed_dim'
    ):
        head.loss(replace(text, embeds=text.embeds[:, :12]), video)


@pytest.mark.parametrize(
    'name', ['EagleNetHead', 'XPoolHead', 'TMASSHead', 'TS2NetHead', 'WTIHead']
)
def test_a_video_without_a_real_frame(name: str) -> None:
    head = build(name, '')
    text, video = features(2, 2)
    video.frame_mask[1] = False
    with pytest.raises(ValueError, match=r'real frame.* position 1'):
        head(text, video)


@pytest.mark.parametrize(
    ('name', 'lacking', 'message'),
    [
        ('WTIHead', 'tokens', r'matches words.*output_tokens=True'),
        ('TS2NetHead', 'patches', r'among patches.*output_patches=True'),
    ],
)
def test_what_encoders_do_not_return(
    name: str, lacking: str, message: str
) -> None:
    head = build(name, '')
    text, video = features(2, 2)
    if lacking == 'tokens':
        text = replace(text, tokens=None, token_mask=None)
    else:
        video = replace(video, patches=None)
    with pytest.raises(ValueError, match=message):
        head(text, video)
    with pytest.raises(ValueError, match=message):
        head.loss(text, video)


def test_a_director_that_would_see_padding_alone_is_refused() -> None:
    head = build('TextProxyHead', 'linear')
    text, video = features(3, 3)
    mask = video.frame_mask.clone()
    mask[1:, 0] = False
    expected = head(text, video)[:, 0]
    # of two frames that are seen, one is real
    video = replace(video, frame_mask=mask | (torch.arange(FRAMES) == 1))
    close(head(text, video)[:, 0], expected, 1e-10)
    mask[2, :2] = False
    mask[2, 2] = True
    video = replace(video, frame_mask=mask)
    message = r'first num_tokens=2 frames, but 1 videos .* at position 2\.'
    with pytest.raises(ValueError, match=message):
        head(text, video)
    with pytest.raises(ValueError, match=message):
        head.loss(text, video)
    build('TextProxyHead', '')(text, video)  # sees all three


@pytest.mark.parametrize('variant', CONFIGS['TextProxyHead'])
def test_matching_proxies_are_those_that_were_scored(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share dropout with the pairs on the diagonal."""
    head = build('TextProxyHead', variant).train()
    matrices = []
    monkeypatch.setattr(
        head,
        'match',
        lambda scores, _share: matrices.append(scores) or scores.sum(),
    )
    head.loss(*features(5, 5))
    _, proxy, positive = matrices
    close(positive.diagonal(), proxy.diagonal(), 1e-12)
    assert (positive - proxy).abs().max() > 1e-3


def test_a_mistyped_option_names_the_head_and_the_right_one():
    with pytest.raises(TypeError, match=r"EagleNetHead .*'num_candidates'"):
        EagleNetHead(embed_dim=8, num_frames=2, num_candidate=5)
    with pytest.raises(TypeError, match=r"XPoolHead .*'memory_budget'"):
        XPoolHead(embed_dim=8, memory_buget=5)
