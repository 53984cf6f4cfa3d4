"""Heads of the other methods, against tensors of their releases.

Golden arrays are float32 runs of the releases. Our heads run in float64 on
the same inputs, where they must agree to the rounding of those runs, and in
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.evaluation.functional import (
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.models.encoders import PatchShift
from eaglenet_mm.models.heads import (
    CrossTransformerHead,
    MeanPoolingHead,
    TextProxyHead,
    TMASSHead,
    TS2NetHead,
    WTIHead,
    XPoolHead,
)
from eaglenet_mm.models.heads.text_proxy_head import ProxyVideoState
from eaglenet_mm.models.losses import Share
from eaglenet_mm.structures import EmbedsState, TextFeatures, VideoFeatures
from tests.golden.baselines import (
    Case,
    compare_gradients,
    load_weights,
    sentences,
    videos,
)
from tests.golden.cases import place

Report = Callable[..., float]
INFO_NCE = dict(type='InfoNCELoss', max_scale=200)
DTYPES = [torch.float64, torch.float32]
VALUES, GRADIENTS = 1e-5, 1e-4


def ready(head: Any, method: str, case: Case) -> Any:
    """Load the golden weights into a head that draws nothing."""
    load_weights(head, method, case)
    return place(head, case.dtype).eval()


@pytest.fixture(params=DTYPES, ids=['float64', 'float32'])
def open_case(
    request: pytest.FixtureRequest, golden_dir: Path
) -> Callable[[str], Case]:
    return lambda name: Case(golden_dir, name, request.param)


def test_x_pool(open_case: Any, golden_report: Report) -> None:
    case = open_case('xpool')
    head = ready(
        XPoolHead(
            case.meta['D'],
            num_heads=case.meta['heads'],
            dropout=0.0,
            loss_match=INFO_NCE,
        ),
        'x_pool',
        case,
    )
    text, frames = case.leaf('in/train_text'), case.leaf('in/train_video')
    losses = head.loss(sentences(text), videos(frames))
    losses['loss_match'].backward()
    golden_report('loss', losses['loss_match'], case['out/train_loss'], VALUES)
    golden_report(
        'sims',
        head(sentences(text), videos(frames)),
        case['out/train_sims'],
        VALUES,
    )
    golden_report('text', text.grad, case['grad/train/text'], GRADIENTS)
    golden_report('video', frames.grad, case['grad/train/video'], GRADIENTS)
    assert compare_gradients(
        golden_report, head, 'x_pool', case, 'grad/train', GRADIENTS,
        'grad/train/w/clip.logit_scale',
    ) == len(case.below('grad/train/w')) - 1  # fmt: skip
    one, other = sentences(case['in/eval_text']), videos(case['in/eval_video'])
    pooled = head.pooling(one.embeds, head.prepare_video(other))
    golden_report('pooled', pooled, case['out/eval_pooled'], VALUES)
    scores = head(one, other)
    golden_report('eval', scores, case['out/eval_sims'], VALUES)
    chunked = head.score_chunked(
        head.prepare_text(one), head.prepare_video(other)
    )
    golden_report('chunked', chunked, case['out/eval_sims'], VALUES)
    owners = case['in/eval_video_of_text'].long()
    for direction, ranks in (
        ('t2v', text_to_video_ranks(scores, owners)),
        ('v2t', video_to_text_ranks(scores, owners)),
    ):
        summary = summarize_ranks(ranks.ranks)
        golden = case[f'out/eval_metrics_{direction}'].tolist()
        got = [summary[key] for key in ('R1', 'R5', 'R10', 'R50')]
        assert got == pytest.approx(golden[:4]), direction
        assert summary['MdR'] == pytest.approx(golden[5]), direction
        assert summary['MnR'] == pytest.approx(golden[6]), direction


def test_parameter_free_pooling(open_case: Any, golden_report: Report) -> None:
    case = open_case('xpool')
    scores = MeanPoolingHead()(
        sentences(case['in/eval_text']), videos(case['in/eval_video'])
    )
    golden_report('average', scores, case['out/baseline_avg_sims'], VALUES)


@pytest.mark.parametrize('prior', ['uniform', 'normal'])
def test_t_mass_training(
    open_case: Any, golden_report: Report, prior: str
) -> None:
    case = open_case('tmass')
    weight = case.meta['support_loss_weight']
    head = ready(
        TMASSHead(
            case.meta['D'],
            case.meta['F'],
            num_heads=case.meta['heads'],
            dropout=0.0,
            loss_match=INFO_NCE,
            support_weight=1.0,  # the release computes it at any weight
        ),
        't_mass',
        case,
    )
    drawn = case[f'noise/train_{prior}']
    head.noise.matching = lambda random, rows, like: drawn[list(rows)]
    text, frames = case.leaf('in/train_text'), case.leaf('in/train_video')
    losses = head.loss(sentences(text), videos(frames))
    total = losses['loss_match'] + weight * losses['loss_support']
    total.backward()
    base = f'out/train_{prior}_'
    golden_report('loss', losses['loss_match'], case[base + 'loss'], VALUES)
    golden_report(
        'support',
        losses['loss_support'],
        case[base + 'loss_support'],
        VALUES,
    )
    golden_report('total', total, case[base + 'loss_total'], VALUES)
    unit = F.normalize(frames, dim=-1)
    radius = head.stochastic_text.of_matching(text, unit)
    golden_report('radius', radius, case['out/train_log_var'], VALUES)
    base = f'grad/train_{prior}/'
    golden_report('text', text.grad, case[base + 'text'], GRADIENTS)
    golden_report('video', frames.grad, case[base + 'video'], GRADIENTS)
    if f'{base}w/clip.logit_scale' in case:
        count = compare_gradients(
            golden_report, head, 't_mass', case, base[:-1], GRADIENTS,
            f'{base}w/clip.logit_scale',
        )  # fmt: skip
        assert count == len(case.below(f'{base}w')) - 1


@pytest.mark.parametrize('name', ['eval1', 'eval2'])
def test_t_mass_evaluation(
    open_case: Any, golden_report: Report, name: str
) -> None:
    case = open_case('tmass')
    head = ready(
        TMASSHead(
            case.meta['D'],
            case.meta['F'],
            num_trials=case.meta['K'],
            num_heads=case.meta['heads'],
        ),
        't_mass',
        case,
    )
    # one table a pair, (Bv, Bt, K, D)
    head.noise_table = case[f'noise/{name}'].transpose(1, 2)
    text = sentences(case[f'in/{name}_text'])
    video = videos(case[f'in/{name}_video'])
    scores = head(text, video)
    golden = case[f'out/{name}_sims_pairwise']
    golden_report('pairwise', scores, golden, VALUES)
    if name == 'eval2':
        return
    with pytest.warns(UserWarning, match='own ground-truth caption'):
        leaking = TMASSHead(
            case.meta['D'],
            case.meta['F'],
            num_trials=case.meta['K'],
            num_heads=case.meta['heads'],
            evaluation='published',
        )
    leaking = ready(leaking, 't_mass', case)
    leaking.noise_table = head.noise_table
    state = leaking.attach_captions(leaking.prepare_video(video), text)
    scores = leaking.score(leaking.prepare_text(text), state)
    golden_report(
        'published', scores, case[f'out/{name}_sims_official'], VALUES
    )


PROXY_VARIANTS = ('theta_p', 'theta_n', 'theta_m2', 'linear')


def proxy_head(case: Case, variant: str) -> TextProxyHead:
    using, delta, eta = case[f'{variant}/cfg'].tolist()
    return ready(
        TextProxyHead(
            case.meta['D'],
            case.meta['M'],
            num_tokens=int(using),
            dash='linear' if variant == 'linear' else 'theta',
            delta=delta,
            eta=eta,
            dropout=0.0,
            loss_match=dict(INFO_NCE, loss_weight=2.0),
            proxy_weight=case.meta['alpha'],
            positive_weight=case.meta['beta'],
        ),
        'text_proxy',
        case,
    )


def proxy_states(
    head: TextProxyHead, text: Tensor, tokens: Tensor, video: Tensor
) -> tuple[EmbedsState, ProxyVideoState]:
    mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    return EmbedsState(text), head.prepare_tokens(tokens, mask, video)


@pytest.mark.parametrize('variant', PROXY_VARIANTS)
def test_text_proxy(
    open_case: Any, golden_report: Report, variant: str
) -> None:
    case = open_case('tv_proxynet')
    head = proxy_head(case, variant)
    names = ('text', 'tokens', 'video')
    inputs = {name: case.leaf(f'in/train_{name}') for name in names}
    states = proxy_states(head, *inputs.values())
    out = f'{variant}/out/'
    proxies = head.proxies(*states).transpose(0, 1)
    golden_report('proxy', proxies, case[out + 'train_proxy'], VALUES)
    share = Share(range(len(states[0])), lambda x: x)
    losses = head.batch_losses(head.batch_of_states(*states, share, None))
    for name, golden, factor in (
        ('loss_match', 'train_loss_base', 1.0),
        ('loss_proxy', 'train_loss_proxy_unweighted', case.meta['alpha']),
        ('loss_positive', 'train_loss_pos_unweighted', case.meta['beta']),
    ):
        golden_report(name, losses[name] / factor, case[out + golden], VALUES)
    total = sum(losses[name] for name in losses if name.startswith('loss'))
    golden_report('total', total, case[out + 'train_loss'], VALUES)
    total.backward()
    for name, value in inputs.items():
        golden_report(
            name, value.grad, case[f'{variant}/grad/{name}'], GRADIENTS
        )
    compare_gradients(
        golden_report, head, 'text_proxy', case, f'{variant}/grad',
        GRADIENTS, f'{variant}/grad/logit_scale',
    )  # fmt: skip
    given = [case[f'in/eval_{name}'] for name in names]
    base, proxy = head.base_and_proxy(*proxy_states(head, *given)).unbind(-1)
    golden_report('base', base, case['out/eval_base'], VALUES)
    golden_report('cosines', proxy, case[out + 'eval_proxy_logits'], VALUES)
    if f'{out}eval_fused' in case:
        for step, fused in enumerate(case[f'{out}eval_fused']):
            head.gamma = step / 10
            scores = head.score(*proxy_states(head, *given))
            golden_report(f'gamma {head.gamma}', scores, fused, VALUES)


CLIP4CLIP = {
    'meanP': 'clip4clip_mean',
    'seqLSTM': 'clip4clip_lstm',
    'seqTransf': 'clip4clip_transformer',
    'tightTransf': 'clip4clip_tight',
}


def temporal_of(case: Case) -> dict[str, Any]:
    return dict(
        type='TemporalTransformer',
        embed_dim=case.meta['D'],
        num_layers=case.meta['layers'],
        num_heads=case.meta['heads'],
        max_positions=case.meta['positions'],
    )


def clip4clip_head(case: Case, variant: str) -> Any:
    if variant == 'tightTransf':
        head: Any = CrossTransformerHead(
            case.meta['D'],
            num_frames=case.meta['F'],
            num_layers=case.meta['tight_layers'],
            num_heads=case.meta['heads'],
            dropout=0.0,
            loss_match=dict(type='InfoNCELoss', init_scale=1, learnable=False),
        )
        weights = dict(case.arrays)
        name = 'w/cross.embeddings.position_embeddings.weight'
        case.arrays[name] = weights[name][: case.meta['F'] + 1]
        scale = case.arrays['in/logit_scale']
        case.arrays['in/logit_scale'] = scale * 0
        head = ready(head, CLIP4CLIP[variant], case)
        case.arrays['in/logit_scale'] = scale
        return head
    temporal = None
    if variant == 'seqLSTM':
        temporal = dict(type='TemporalLSTM', embed_dim=case.meta['D'])
    elif variant == 'seqTransf':
        temporal = temporal_of(case)
    return ready(
        MeanPoolingHead(temporal, loss_match=INFO_NCE),
        CLIP4CLIP[variant],
        case,
    )


@pytest.mark.parametrize('variant', CLIP4CLIP)
def test_clip4clip(
    open_case: Any, golden_report: Report, variant: str
) -> None:
    case = open_case('clip4clip')
    head = clip4clip_head(case, variant)
    factor = 1.0
    if variant != 'tightTransf':
        factor = float(case['in/logit_scale'].exp())
    text, frames = case.leaf('in/train_text'), case.leaf('in/train_video')
    mask = case.mask('in/train_video_mask')
    losses = head.loss(sentences(text), videos(frames, mask))
    losses['loss_match'].backward()
    golden_report(
        'loss', losses['loss_match'], case[f'{variant}/out/train_loss'], VALUES
    )
    scores = head(sentences(text), videos(frames, mask))
    golden_report(
        'train', factor * scores, case[f'{variant}/out/train_logits'], VALUES
    )
    golden_report('text', text.grad, case[f'{variant}/grad/text'], GRADIENTS)
    golden_report(
        'video', frames.grad, case[f'{variant}/grad/video'], GRADIENTS
    )
    scale = f'{variant}/grad/logit_scale'
    compare_gradients(
        golden_report, head, CLIP4CLIP[variant], case, f'{variant}/grad',
        GRADIENTS, scale if scale in case else None,
    )  # fmt: skip
    scores = head(
        sentences(case['in/eval_text']),
        videos(case['in/eval_video'], case.mask('in/eval_video_mask')),
    )
    golden_report(
        'eval', factor * scores, case[f'{variant}/out/eval_logits'], VALUES
    )


def tokens_of(case: Case, side: str, mask: Tensor) -> VideoFeatures:
    tokens = case.leaf(f'in/{side}_tokens')
    video = VideoFeatures(tokens[:, :, 0], mask, tokens[:, :, 1:])
    video.leaf = tokens  # type: ignore[attr-defined]
    return video


class GivenSelection(TS2NetHead):
    """TS2-Net with the noise of the golden file, in training as well."""

    given: Tensor

    def prepare_with_noise(self, video: VideoFeatures, noise: Tensor) -> Any:
        return super().prepare_with_noise(video, self.given)


@pytest.mark.parametrize('masked', ['mask', 'full'])
def test_ts2_net(open_case: Any, golden_report: Report, masked: str) -> None:
    case = open_case('ts2net')
    meta = case.meta
    head = ready(
        GivenSelection(
            meta['D'],
            num_frames=meta['F'],
            num_patches=meta['tokens_per_frame'] - 1,
            num_selected=meta['topk'],
            num_samples=meta['num_samples'],
            sigma=meta['sigma'],
            num_layers=meta['layers'],
            num_heads=meta['heads'],
            release_mask=True,
            loss_match=INFO_NCE,
        ),
        'ts2_net',
        case,
    )
    factor = float(case['in/logit_scale'].exp())
    mask = case.mask('in/train_video_mask')
    if masked == 'full':
        mask = torch.ones_like(mask)
    text = case.leaf('in/train_text')
    video = tokens_of(case, 'train', mask)
    head.given = case['noise/train']
    losses = head.loss(sentences(text), video)
    losses['loss_match'].backward()
    golden_report(
        'loss',
        losses['loss_match'],
        case[f'out/train_{masked}_loss'],
        VALUES,
    )
    golden_report(
        'train',
        factor * head(sentences(text), video),
        case[f'out/train_{masked}_logits'],
        VALUES,
    )
    golden_report('text', text.grad, case[f'grad/{masked}/text'], GRADIENTS)
    golden_report(
        'tokens',
        video.leaf.grad,  # type: ignore[attr-defined]
        case[f'grad/{masked}/tokens'],
        GRADIENTS,
    )
    compare_gradients(
        golden_report, head, 'ts2_net', case, f'grad/{masked}', GRADIENTS,
        f'grad/{masked}/logit_scale',
    )  # fmt: skip
    mask = case.mask('in/eval_video_mask')
    if masked == 'full':
        mask = torch.ones_like(mask)
    head.given = case['noise/eval']
    video = tokens_of(case, 'eval', mask)
    golden_report(
        'eval',
        factor * head(sentences(case['in/eval_text']), video),
        case[f'out/eval_{masked}_logits'],
        VALUES,
    )


@pytest.mark.parametrize('side', ['train', 'eval'])
def test_token_selection(
    open_case: Any, golden_report: Report, side: str
) -> None:
    case = open_case('ts2net')
    head = ready(
        TS2NetHead(
            case.meta['D'],
            num_frames=case.meta['F'],
            num_patches=case.meta['tokens_per_frame'] - 1,
            num_selected=case.meta['topk'],
            num_layers=case.meta['layers'],
            num_heads=case.meta['heads'],
        ),
        'ts2_net',
        case,
    )
    tokens = case[f'in/{side}_tokens']
    frames = tokens.flatten(0, 1)
    scores = head.selector.scores(frames)
    golden_report('scores', scores, case[f'out/{side}_scores'], VALUES)
    noise = case[f'noise/{side}']
    golden_report(
        'indicator',
        head.selector.indicator(scores[:, 1:], noise),
        case[f'out/{side}_indicator'],
        VALUES,
    )
    selected = head.selector(frames, noise).unflatten(0, tokens.shape[:2])
    golden_report(
        'selected',
        selected.flatten(1, 2),
        case[f'out/{side}_selected_tokens'],
        VALUES,
    )


def test_token_shift(open_case: Any, golden_report: Report) -> None:
    case = open_case('ts2net')
    for name in sorted(case.below('in')):
        if not name.startswith('shift'):
            continue
        x = case[f'in/{name}']
        shifted = PatchShift()(x, case.meta[f'{name}_frames'])
        golden_report(name, shifted, case[f'out/{name}'], 0.0)


class GivenNumbers:
    """Stands for the random numbers of the golden file."""

    def __init__(self, case: Case, variant: str) -> None:
        self.numbers = [
            case[f'noise/{variant}_{place}']
            for place in range(2)
            if f'noise/{variant}_{place}' in case
        ]

    def uniform(
        self, purpose: str, keys: Any, shape: Any, like: Any
    ) -> Tensor:
        if not self.numbers:
            # of one vector there is no choice
            return torch.zeros(len(keys), 1)
        numbers = self.numbers[0 if purpose == 'word' else 1]
        return (numbers.double().unsqueeze(-1) + 0.5) / 10000


WTI_VARIANTS = (
    'dp_None_cdcr0', 'dp_seqTransf_cdcr1', 'ti_seqTransf_cdcr2',
    'ti_None_cdcr0', 'ti_None_cdcr1', 'wti_None_cdcr0',
    'wti_seqTransf_cdcr0', 'wti_seqTransf_cdcr3',
)  # fmt: skip
PAIRINGS = {'1': 'sample', '2': 'best', '3': 'weighted'}


def wti_head(case: Case, variant: str) -> WTIHead:
    interaction, temporal, mode = variant.split('_')
    meta = case.meta
    decorrelation = None
    if mode != 'cdcr0':
        pairing = PAIRINGS[mode[-1]]
        decorrelation = dict(
            type='ChannelDecorrelationLoss',
            pairing=pairing,
            diagonal_weight=meta['cdcr_alpha1'],
            other_weight=meta['cdcr_alpha2'],
            loss_weight=meta['cdcr_lambda'],
            release_mask=True,
        )
    head = WTIHead(
        meta['D'],
        num_frames=meta['F'],
        interaction=interaction,
        release_mask=True,
        temporal=temporal_of(case) if temporal == 'seqTransf' else None,
        loss_match=INFO_NCE,
        loss_decorrelation=decorrelation,
    )
    return ready(head, 'wti', case)


def wti_inputs(
    case: Case, side: str, leaves: bool
) -> tuple[Tensor, Tensor, TextFeatures, VideoFeatures]:
    words, frames = case[f'in/{side}_text'], case[f'in/{side}_video']
    if leaves:
        words.requires_grad_()
        frames.requires_grad_()
    mask = case.mask(f'in/{side}_text_mask')
    ends = mask.sum(dim=1) - 1
    text = TextFeatures(words[torch.arange(len(ends)), ends], words, mask)
    video = videos(frames, case.mask(f'in/{side}_video_mask'))
    return words, frames, text, video


@pytest.mark.parametrize('variant', WTI_VARIANTS)
def test_wti(
    open_case: Any,
    golden_report: Report,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
) -> None:
    case = open_case('wti')
    head = wti_head(case, variant)
    monkeypatch.setattr(
        head, 'next_random', lambda: GivenNumbers(case, variant)
    )
    factor = float(case['in/logit_scale'].exp())
    words, frames, text, video = wti_inputs(case, 'train', True)
    losses = head.loss(text, video)
    total = losses['loss_match'] + losses.get('loss_decorrelation', 0.0)
    total.backward()
    golden_report(
        'sim loss',
        losses['loss_match'],
        case[f'{variant}/out/train_sim_loss'],
        VALUES,
    )
    if 'loss_decorrelation' in losses:
        golden_report(
            'cdcr',
            losses['loss_decorrelation'] / case.meta['cdcr_lambda'],
            case[f'{variant}/out/train_cdcr'],
            VALUES,
        )
    golden_report('loss', total, case[f'{variant}/out/train_loss'], VALUES)
    golden_report(
        'train',
        factor * head(text, video),
        case[f'{variant}/out/train_logits'],
        VALUES,
    )
    golden_report('text', words.grad, case[f'{variant}/grad/text'], GRADIENTS)
    golden_report(
        'video', frames.grad, case[f'{variant}/grad/video'], GRADIENTS
    )
    compare_gradients(
        golden_report, head, 'wti', case, f'{variant}/grad', GRADIENTS,
        f'{variant}/grad/logit_scale',
    )  # fmt: skip
    _, _, text, video = wti_inputs(case, 'eval', False)
    golden_report(
        'eval', head(text, video), case[f'{variant}/out/eval_logits'], VALUES
    )
