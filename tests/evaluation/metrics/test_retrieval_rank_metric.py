from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults, Evaluator

from eaglenet_mm.evaluation import RetrievalRankMetric
from eaglenet_mm.evaluation.functional import (
    bootstrap_recall,
    dual_softmax,
    off_shortlist_scores,
    query_bank_normalisation,
    shortlist_recall,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.evaluation.metrics import retrieval_rank_metric
from eaglenet_mm.registry import METRICS


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(9, 4)


OWNER = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 1])


def rows_of(scores: torch.Tensor, owner: torch.Tensor = OWNER) -> list[dict]:
    return [
        dict(
            caption_index=caption,
            video_index=int(owner[caption]),
            scores=scores[caption].clone(),
        )
        for caption in range(len(scores))
    ]


def evaluate(metric: RetrievalRankMetric, rows: list[dict], **announced):
    metric.process(announced or None, rows)
    return metric.evaluate(len(rows))


def test_values_equal_the_functions(scores):
    metrics = evaluate(RetrievalRankMetric(), rows_of(scores))
    t2v = summarize_ranks(text_to_video_ranks(scores, OWNER).ranks)
    v2t = summarize_ranks(video_to_text_ranks(scores, OWNER).ranks)
    expected = {f't2v/{key}': value for key, value in t2v.items()}
    expected |= {f'v2t/{key}': value for key, value in v2t.items()}
    expected['Rsum'] = sum(
        side[key] for side in (t2v, v2t) for key in ('R1', 'R5', 'R10')
    )
    expected |= {'t2v/ties': 0.0, 'v2t/ties': 0.0}
    assert metrics == expected
    assert all(type(value) is float for value in metrics.values())


def test_order_and_duplicates_do_not_matter(scores):
    expected = evaluate(RetrievalRankMetric(), rows_of(scores))
    rows = rows_of(scores)[::-1] + rows_of(scores)[2:5]
    metric = RetrievalRankMetric()
    assert evaluate(metric, rows, num_captions=9, num_videos=4) == expected
    # nothing of one evaluation is left for the next
    assert evaluate(metric, rows_of(scores)) == expected


def test_ties_are_counted_and_count_against():
    metrics = evaluate(
        RetrievalRankMetric(), rows_of(torch.zeros(4, 4), torch.arange(4))
    )
    assert metrics['t2v/R1'] == 0.0
    assert metrics['t2v/MnR'] == 4.0
    assert metrics['t2v/ties'] == metrics['v2t/ties'] == 4.0


def test_columns_with_gaps(scores):
    """Videos 5, 7, 8 and 20 of a file, columns 0 to 3."""
    numbers = torch.tensor([5, 7, 8, 20])
    rows = rows_of(scores)
    for row in rows:
        row['column'] = row['video_index']
        row['video_index'] = int(numbers[row['column']])
        row['caption_index'] *= 3
    expected = evaluate(RetrievalRankMetric(), rows_of(scores))
    assert evaluate(RetrievalRankMetric(), rows) == expected


def test_post_processing_is_reported_beside_the_raw_result(scores):
    raw = evaluate(RetrievalRankMetric(), rows_of(scores))
    metric = METRICS.build(
        dict(
            type='RetrievalRankMetric',
            post_process=[
                dict(type='dsl', temperature=5.0),
                dict(type='querybank', beta=2.0),
            ],
        )
    )
    metrics = evaluate(metric, rows_of(scores))
    assert {key: metrics[key] for key in raw} == raw
    dsl = dual_softmax(scores, temperature=5.0)
    back = dual_softmax(scores.t(), temperature=5.0).t()
    bank = query_bank_normalisation(scores, scores, beta=2.0)
    expected = {
        't2v_dsl/MnR': text_to_video_ranks(dsl, OWNER),
        'v2t_dsl/MnR': video_to_text_ranks(back, OWNER),
        't2v_querybank/MnR': text_to_video_ranks(bank, OWNER),
    }
    for key, result in expected.items():
        assert metrics[key] == summarize_ranks(result.ranks)['MnR']
    assert {'Rsum_dsl', 'Rsum_querybank', 'v2t_querybank/R1'} <= set(metrics)


def test_an_external_bank_serves_texts_only(scores, tmp_path):
    bank = np.random.default_rng(0).standard_normal((20, 4))
    np.save(tmp_path / 'bank.npy', bank)
    metric = RetrievalRankMetric(
        post_process=dict(
            type='querybank', bank_file=str(tmp_path / 'bank.npy')
        )
    )
    metrics = evaluate(metric, rows_of(scores))
    rescored = query_bank_normalisation(scores, torch.from_numpy(bank))
    ranks = text_to_video_ranks(rescored, OWNER).ranks
    assert metrics['t2v_querybank/MnR'] == summarize_ranks(ranks)['MnR']
    assert 'v2t_querybank/R1' not in metrics
    assert 'Rsum_querybank' not in metrics


def test_bootstrap_interval_is_reported(scores):
    metric = RetrievalRankMetric(bootstrap=dict(num_samples=200))
    metrics = evaluate(metric, rows_of(scores))
    for direction in ('t2v', 'v2t'):
        low, high = (
            metrics[f'{direction}/R1_{end}'] for end in ('low', 'high')
        )
        assert low <= metrics[f'{direction}/R1'] <= high
        assert low < high


def test_captions_of_a_video_are_resampled_together(scores):
    metric = RetrievalRankMetric(bootstrap=dict(num_samples=200, level=0.8))
    metrics = evaluate(metric, rows_of(scores))
    ranks = text_to_video_ranks(scores, OWNER).ranks
    options = dict(num_samples=200, level=0.8)
    together = bootstrap_recall(ranks, OWNER, **options)
    assert together != bootstrap_recall(ranks, **options)
    assert (metrics['t2v/R1_low'], metrics['t2v/R1_high']) == together


def test_protocol_is_stated(scores, monkeypatch):
    lines: list[tuple[int | None, str]] = []
    monkeypatch.setattr(
        retrieval_rank_metric,
        'print_log',
        lambda text, logger, level=None: lines.append((level, text)),
    )
    metric = RetrievalRankMetric(post_process=dict(type='dsl'))
    metric.dataset_meta = dict(
        dataset='msvd', split='test', protocol='all', num_captions=9,
        num_videos=4,
    )  # fmt: skip
    metrics = evaluate(metric, rows_of(scores), num_captions=9, num_frames=12)
    assert not any('found' in key for key in metrics)
    level, shown = lines[0]
    assert level == logging.INFO
    assert len(lines) == 5  # raw and post-processed, both directions
    assert (
        'dataset msvd, split test, protocol all; texts: found 9 of 9, '
        'videos: found 4 of 4; frames 12; ties count against; '
        'post-processing dsl(temperature=100.0)'
    ) in shown
    assert 'NOT the complete set' not in shown
    metric.dataset_meta = dict(num_videos=5)
    metrics = evaluate(metric, rows_of(scores))
    assert metrics['videos_found'] == 4
    assert metrics['videos_expected'] == 5
    assert 'texts_found' not in metrics
    level, shown = lines[5]
    assert level == logging.WARNING
    assert 'texts: found 9 of unknown' in shown
    assert 'videos: found 4 of 5' in shown
    assert 'NOT the complete set' in shown


def two_stage(scores: torch.Tensor) -> torch.Tensor:
    """Shortlist two videos of each row by random cheap scores."""
    cheap = torch.rand_like(scores)
    scored = torch.zeros_like(scores).scatter_(1, cheap.topk(2).indices, 1)
    return torch.where(scored.bool(), scores, off_shortlist_scores(cheap))


def test_two_stage_scores(scores, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(
        retrieval_rank_metric,
        'print_log',
        lambda text, logger, level=None: lines.append(text),
    )
    scores = two_stage(scores)
    metrics = evaluate(
        RetrievalRankMetric(post_process=dict(type='dsl')),
        rows_of(scores),
        shortlist=2,
        first_stage='mean pooling',
    )
    for direction, percent in zip(
        ('t2v', 'v2t'), shortlist_recall(scores, OWNER), strict=True
    ):
        assert metrics[f'{direction}/shortlist_recall'] == percent
        assert f'{direction}_dsl/shortlist_recall' not in metrics
    ranks = text_to_video_ranks(scores, OWNER).ranks
    assert metrics['t2v/MnR'] == summarize_ranks(ranks)['MnR']
    assert '; two-stage, shortlist 2 by mean pooling; ties' in lines[0]
    # nothing is announced for dumped rows: the scores themselves tell
    again = evaluate(
        RetrievalRankMetric(post_process=dict(type='dsl')), rows_of(scores)
    )
    assert again == metrics
    assert any('two-stage, shortlist 2 by an unknown' in x for x in lines)


def test_a_shortlist_of_the_whole_gallery(scores):
    metrics = evaluate(RetrievalRankMetric(), rows_of(scores), shortlist=4)
    plain = evaluate(RetrievalRankMetric(), rows_of(scores))
    assert metrics == plain | {
        't2v/shortlist_recall': 100.0,
        'v2t/shortlist_recall': 100.0,
    }


def test_offline_evaluation_of_dumped_rows(scores, tmp_path):
    """Rows written by DumpResults can be measured again."""
    path = tmp_path / 'rows.pkl'
    evaluator = Evaluator([RetrievalRankMetric(), DumpResults(str(path))])
    evaluator.process(rows_of(scores), dict(num_captions=9, num_videos=4))
    expected = evaluator.evaluate(9)
    rows = pickle.loads(path.read_bytes())
    again = Evaluator([RetrievalRankMetric()])
    assert again.offline_evaluate(rows) == expected


def test_missing_rows(scores):
    with pytest.raises(ValueError, match='rows of 9 captions, but got 7'):
        evaluate(RetrievalRankMetric(), rows_of(scores)[2:], num_captions=9)
    with pytest.raises(ValueError, match='but got 0'):
        evaluate(RetrievalRankMetric(), [])


def test_rows_of_different_lengths(scores):
    rows = rows_of(scores)
    rows[3]['scores'] = rows[3]['scores'][:2]
    with pytest.raises(ValueError, match=r'rows have lengths \[2, 4\]'):
        evaluate(RetrievalRankMetric(), rows)
    with pytest.raises(ValueError, match=r'cover the 5 videos'):
        evaluate(RetrievalRankMetric(), rows_of(scores), num_videos=5)


def test_non_finite_scores(scores):
    scores[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r'1 of 36 .* nan in row 2, column 1'):
        evaluate(RetrievalRankMetric(), rows_of(scores))


def test_a_row_without_scores():
    with pytest.raises(KeyError, match="without 'scores'"):
        RetrievalRankMetric().process(
            None, [dict(caption_index=0, video_index=0)]
        )


def test_bad_options():
    with pytest.raises(ValueError, match=r"got \['samples'\]"):
        RetrievalRankMetric(bootstrap=dict(samples=3))
    with pytest.raises(ValueError, match=r"holds \['dsl', 'dsl'\]"):
        RetrievalRankMetric(
            post_process=[dict(type='dsl'), dict(type='dsl', temperature=1.0)]
        )
