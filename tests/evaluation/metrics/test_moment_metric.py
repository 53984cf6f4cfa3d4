"""Moments from rows to metrics, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eaglenet_mm.evaluation import MomentMetric

#: Two videos of three and two windows of two seconds.
WINDOWS = dict(
    columns=torch.tensor([0, 0, 0, 1, 1]),
    spans=torch.tensor([[0, 2], [2, 4], [4, 6], [0, 2], [2, 4]]).double(),
)


def row(caption: int, column: int, scores: list, **changes: Any) -> dict:
    said = dict(
        caption_index=caption,
        moment_column=column,
        moments=[[2.0, 4.0]],
        window_scores=torch.tensor(scores),
        best_times=torch.tensor([1.0, 3.0, 5.0][: 2 if column else 3]),
    )
    return {**said, **changes}


def measured(rows: list[dict], **options: Any) -> dict[str, float]:
    metric = MomentMetric(**{**dict(segment=2), **options})
    half = len(rows) // 2
    metric.process(dict(windows=WINDOWS), rows[:half])
    metric.process(dict(windows=WINDOWS), rows[half:])
    return metric.evaluate(1)


def test_by_eye():
    rows = [
        row(0, 0, [0.1, 0.9, 0.2]),
        row(1, 1, [0.9, 0.1]),
        row(1, 1, [0.1, 0.9]),  # the last of the same caption counts
        row(2, 0, [0.5, 0.5, 0.2]),  # a tie counts against it
        dict(caption_index=3),  # has no moment
    ]
    found = measured(rows)
    assert found['moments/R1_IoU0.5'] == pytest.approx(200 / 3)
    assert found['moments/R5_IoU0.5'] == 100
    assert found['moments/R1_IoU0.5_chance'] == pytest.approx(
        100 * (1 / 3 + 1 / 2 + 1 / 3) / 3
    )
    assert found['moments/mIoU'] == pytest.approx(200 / 3)
    assert found['moments/best_time'] == pytest.approx(200 / 3)
    assert found['moments/best_time_chance'] == pytest.approx(
        100 * (1 / 3 + 1 / 2 + 1 / 3) / 3
    )
    assert found['moments/captions'] == 3
    assert 'moments/captions_lost' not in found


def test_a_window_of_another_video_is_wrong():
    rows = [row(0, 1, [0.1, 0.8, 0.2, 0.3, 0.7])]
    found = measured(rows, corpus=True, recall_at=[1, 2])
    assert found['moments/R1_IoU0.7'] == 100
    assert found['moments/corpus_R1_IoU0.7'] == 0
    assert found['moments/corpus_R2_IoU0.7'] == 100
    assert found['moments/corpus_R2_IoU0.7_chance'] == 40
    assert found['moments/corpus_mIoU'] == 0
    assert found['moments/corpus_IoU0.7_ceiling'] == 100


def test_captions_of_videos_that_were_not_read():
    lost = row(1, 1, [])
    del lost['window_scores'], lost['best_times']
    found = measured([row(0, 0, [0.1, 0.9, 0.2]), lost])
    assert found['moments/captions'] == 1
    assert found['moments/captions_lost'] == 1


def test_nothing_to_measure():
    with pytest.raises(ValueError, match='no caption'):
        measured([dict(caption_index=3)])
    with pytest.raises(KeyError, match='RetrievalTestLoop'):
        MomentMetric(segment=2).process({}, [row(0, 0, [0.1, 0.9, 0.2])])


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(), r"'segment' .* got \[\]"),
        (dict(segment=0), r'got \[0.0\]'),
        (dict(segment=[2, float('inf')]), r'got \[2.0, inf\]'),
        (dict(segment=2, overlap=1), 'got 1'),
        (dict(segment=2, overlap=-0.1), r'got -0\.1'),
        (dict(segment=2, didemo=True), 'segment=2'),
        (dict(overlap=0.5, didemo=True), r'overlap=0\.5'),
        (dict(segment=2, iou_thresholds=[0]), r'\(0,\)'),
        (dict(segment=2, recall_at=[0]), r'\(0,\)'),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        MomentMetric(**options)


@pytest.mark.parametrize(
    ('key', 'expected'),
    [
        ('moments/R1_IoU0.5', 'greater'),
        ('moments/corpus_R5_IoU0.7', 'greater'),
        ('moments/corpus_mIoU', 'greater'),
        ('moments/didemo_rank1', 'greater'),
        ('moments/best_time_mean', 'greater'),
        ('moments/mIoU_std', 'less'),
        ('moments/R1_IoU0.5_chance', None),
        ('moments/IoU0.5_ceiling', None),
        ('moments/captions', None),
        ('moments/R2_IoU0.5', None),
        ('R1_IoU0.5', None),
        ('t2v/R1', None),
    ],
)
def test_which_way_is_up(key, expected):
    assert MomentMetric(didemo=True, corpus=True).better_when(key) == expected
    if 'corpus' in key or 'didemo' in key:
        assert MomentMetric(segment=2).better_when(key) is None
