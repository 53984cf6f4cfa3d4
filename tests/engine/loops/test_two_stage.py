"""Shortlists by a cheap score, the head on them alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eaglenet_mm.engine.loops import RetrievalTestLoop, RetrievalValLoop
from eaglenet_mm.engine.loops import retrieval_evaluation as evaluation_module
from eaglenet_mm.engine.loops import two_stage as two_stage_module
from eaglenet_mm.engine.loops.two_stage import (
    TwoStageScorer,
    choose_highest,
)
from eaglenet_mm.evaluation.functional import on_shortlist
from eaglenet_mm.evaluation.metrics import retrieval_rank_metric
from eaglenet_mm.models.heads import MeanPoolingHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.engine.loops.test_retrieval_loop import NUM_CAPTIONS, dumped
from tests.engine.loops.tiny_retrieval import (
    FRAMES,
    WIDTH,
    BestFrameHead,
    build_runner,
)

DATASET = dict(num_videos=7, max_captions=3)
HEAD = dict(head=dict(type='BestFrameHead'))


def sides(texts: int, videos: int) -> tuple[TextFeatures, VideoFeatures]:
    mask = torch.ones(videos, FRAMES, dtype=torch.bool)
    mask[1::2, -1] = False
    return (
        TextFeatures(torch.randn(texts, WIDTH)),
        VideoFeatures(torch.randn(videos, FRAMES, WIDTH), mask),
    )


def test_choose_highest_takes_the_lower_of_equal_columns():
    scores = torch.tensor(
        [[1.0, 3, 3, 2, 3], [0, 0, 0, 0, 0], [5, 1, 4, 4, 0]]
    )
    for count in range(1, 6):
        expected = torch.zeros(3, 5, dtype=torch.bool)
        for row in range(3):
            order = sorted(range(5), key=lambda j: (-scores[row, j], j))
            expected[row, order[:count]] = True
        assert torch.equal(choose_highest(scores, count), expected)


@pytest.mark.parametrize('shift', [-1e6, 0.0, 1e6])
@torch.no_grad()
def test_scores_of_both_stages(shift):
    """Shortlisted pairs by the head, behind them all others by the cheap."""
    text, video = sides(23, 11)
    head = BestFrameHead(shift=shift)
    scores = TwoStageScorer(head, video, 4)(text)
    assert head.num_pairs == 23 * 4
    cheap, full = MeanPoolingHead()(text, video), head(text, video)
    chosen = choose_highest(cheap, 4)
    assert torch.equal(on_shortlist(scores), chosen)
    torch.testing.assert_close(scores[chosen], full[chosen])
    # over the whole matrix, so that columns can be compared too
    assert scores[~chosen].max() < scores[chosen].min()
    order = cheap[~chosen].argsort()
    assert (scores[~chosen][order].diff() >= 0).all()
    assert (cheap[~chosen][order].diff() > 0).sum() == (
        scores[~chosen][order].diff() > 0
    ).sum()
    for row in range(23):
        ranking = scores[row].argsort(descending=True)
        behind = cheap[row].argsort(descending=True)[4:]
        assert torch.equal(ranking[4:], behind)


@torch.no_grad()
def test_all_videos_on_the_shortlist_give_the_scores_of_all_pairs():
    text, video = sides(9, 6)
    head = BestFrameHead()
    torch.testing.assert_close(
        TwoStageScorer(head, video, 6)(text),
        head(text, video),
        atol=1e-6,
        rtol=0,
    )


@torch.no_grad()
def test_videos_nobody_wants_and_double_precision():
    text, video = sides(2, 9)
    scores = TwoStageScorer(BestFrameHead(), video, 2)(text)
    assert (~on_shortlist(scores).any(dim=0)).sum() >= 5
    double = TwoStageScorer(
        BestFrameHead().double(), video.to(torch.double), 2
    )(text.to(torch.double))
    assert double.dtype == torch.double
    chosen = on_shortlist(double)
    torch.testing.assert_close(double[chosen].float(), scores[chosen])
    # off the shortlist the cheap score is that of float32 in both
    torch.testing.assert_close(double.float(), scores, rtol=1e-4, atol=0)


class LastFrameHead(BestFrameHead):
    """A head with a first stage of its own."""

    length = 1.0

    def shortlist_text(self, text: TextFeatures) -> Tensor:
        return torch.nn.functional.normalize(text.embeds, dim=-1)

    def shortlist_video(self, video: VideoFeatures) -> Tensor:
        frames = torch.nn.functional.normalize(video.frames[:, -1], dim=-1)
        return frames * self.length


@torch.no_grad()
def test_a_head_may_bring_its_own_first_stage():
    text, video = sides(5, 8)
    head = LastFrameHead()
    scores = TwoStageScorer(head, video, 3)(text)
    cheap = head.shortlist_text(text) @ head.shortlist_video(video).t()
    assert torch.equal(on_shortlist(scores), choose_highest(cheap, 3))
    assert head.first_stage == 'the vectors of LastFrameHead'
    assert BestFrameHead.first_stage == 'mean pooling'


@torch.no_grad()
def test_scores_that_cannot_be_ordered():
    text, video = sides(5, 8)
    head = LastFrameHead()
    head.length = 40.0
    with pytest.raises(ValueError, match=r'LastFrameHead reach from .*unit'):
        TwoStageScorer(head, video, 3)(text)
    head.length = torch.nan
    with pytest.raises(ValueError, match='reach from nan to nan'):
        TwoStageScorer(head, video, 3)(text)
    low = BestFrameHead(shift=-1e20)
    with pytest.raises(ValueError, match=r'-1.15e\+18, .* gave -1e\+20'):
        TwoStageScorer(low, video, 3)(text)


def test_loop_reports_the_first_stage(tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(
        retrieval_rank_metric,
        'print_log',
        lambda text, **_: lines.append(text),
    )
    rows = dumped(
        tmp_path,
        'short',
        dataset=DATASET,
        model=HEAD,
        loop=dict(shortlist=1),
    )
    scores = torch.stack([row['scores'] for row in rows])
    columns = torch.tensor([row['column'] for row in rows])
    chosen = on_shortlist(scores)
    assert chosen.sum(dim=1).tolist() == [1] * NUM_CAPTIONS
    full = dumped(tmp_path, 'full', dataset=DATASET, model=HEAD)
    exact = torch.stack([row['scores'] for row in full])
    torch.testing.assert_close(scores[chosen], exact[chosen])
    runner = build_runner(
        str(tmp_path), dataset=DATASET, model=HEAD, loop=dict(shortlist=1)
    )
    metrics = runner.test()
    assert runner.model.head.num_pairs == NUM_CAPTIONS
    found = [bool(chosen[row, column]) for row, column in enumerate(columns)]
    assert metrics['t2v/shortlist_recall'] == pytest.approx(
        100 * sum(found) / NUM_CAPTIONS
    )
    videos = {int(c) for c, hit in zip(columns, found, strict=True) if hit}
    assert metrics['v2t/shortlist_recall'] == pytest.approx(
        100 * len(videos) / 7
    )
    assert 0 < len(videos) < 7
    assert '; two-stage, shortlist 1 by mean pooling; ' in lines[-3]


def test_shortlist_of_the_whole_gallery_equals_all_pairs(tmp_path):
    full = dumped(tmp_path, 'full', dataset=DATASET, model=HEAD)
    rows = dumped(
        tmp_path,
        'short',
        dataset=DATASET,
        model=HEAD,
        loop=dict(shortlist=7),
    )
    for row, expected in zip(rows, full, strict=True):
        assert torch.equal(row['scores'], expected['scores'])
    metrics = build_runner(
        str(tmp_path), dataset=DATASET, model=HEAD, loop=dict(shortlist=7)
    ).test()
    plain = build_runner(str(tmp_path), dataset=DATASET, model=HEAD).test()
    assert metrics == plain | {
        't2v/shortlist_recall': 100.0,
        'v2t/shortlist_recall': 100.0,
    }


def test_many_blocks_encode_as_all_pairs_do(tmp_path, monkeypatch):
    """Blocks of captions do not change what is encoded together."""
    whole = dumped(
        tmp_path,
        'whole',
        dataset=DATASET,
        model=HEAD,
        loop=dict(shortlist=2),
    )
    monkeypatch.setattr(evaluation_module, 'TEXT_BLOCK', 2)
    monkeypatch.setitem(two_stage_module.SHORTLIST_BLOCK, 'cpu', 5)
    runner = build_runner(
        str(tmp_path), dataset=DATASET, model=HEAD, loop=dict(shortlist=2)
    )
    runner.test()
    sizes = [size for side, size in runner.model.calls if side == 'text']
    assert sizes == [2, 2, 1, 2, 2, 1, 2, 1]
    parts = dumped(
        tmp_path,
        'parts',
        dataset=DATASET,
        model=HEAD,
        loop=dict(shortlist=2),
    )
    for row, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(row['scores'], expected['scores'])


def test_noise_seeds_with_a_shortlist(tmp_path):
    noisy = dict(head=dict(type='BestFrameHead', noise=0.5))
    options = dict(dataset=DATASET, model=noisy)
    metrics = build_runner(
        str(tmp_path), **options, loop=dict(shortlist=3, noise_seeds=2)
    ).test()
    values = []
    for seed in range(2):
        single = build_runner(str(tmp_path), **options, loop=dict(shortlist=3))
        single.model.head.reseed(seed)
        values.append(single.test()['t2v/MnR'])
    assert values[0] != values[1]
    assert metrics['t2v/MnR_mean'] == pytest.approx(sum(values) / 2)


def test_shortlist_longer_than_the_gallery(tmp_path):
    runner = build_runner(
        str(tmp_path), dataset=DATASET, model=HEAD, loop=dict(shortlist=8)
    )
    with pytest.raises(ValueError, match=r"'shortlist' is 8, .* 7 videos"):
        runner.test()
    assert runner.model.calls == []  # said before anything is encoded
    # 13 items, of which only the gathering knows that they are 7 videos
    runner = build_runner(
        str(tmp_path),
        dataset=dict(**DATASET, expand=True),
        model=HEAD,
        loop=dict(shortlist=8),
    )
    with pytest.raises(ValueError, match=r"'shortlist' is 8, .* 7 videos"):
        runner.test()


@pytest.mark.parametrize('loop', [RetrievalValLoop, RetrievalTestLoop])
def test_negative_shortlist(loop):
    with pytest.raises(ValueError, match=r"'shortlist' must be 0 .* got -1"):
        loop(None, None, None, shortlist=-1)
