"""Moments, from videos to metrics."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.evaluation.functional import temporal_iou
from eaglenet_mm.models.heads import MeanPoolingHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.engine.loops.coloured_scenes import (
    COLOURS,
    Scenes,
    build_runner,
    dataset_config,
    write_set,
)

PLAIN: list[Scenes] = [
    [('red', 2), ('green', 2), ('blue', 2)],
    [('blue', 2), ('red', 2)],
    [('green', 2), ('white', 2), ('red', 2)],
]


def measured(dataset: Any, work_dir: Path, **options: Any) -> dict[str, float]:
    options.setdefault('moments', dict(segment=2))
    return build_runner(dataset, work_dir, **options).test()


def test_moments_that_are_found(tmp_path):
    dataset = dataset_config(write_set(tmp_path, PLAIN))
    found = measured(dataset, tmp_path)
    assert {k: v for k, v in found.items() if 'moments/' in k} == {
        'moments/R1_IoU0.5': 100.0,
        'moments/R1_IoU0.5_chance': pytest.approx(100 * 3 / 8),
        'moments/R5_IoU0.5': 100.0,
        'moments/R5_IoU0.5_chance': 100.0,
        'moments/IoU0.5_ceiling': 100.0,
        'moments/R1_IoU0.7': 100.0,
        'moments/R1_IoU0.7_chance': pytest.approx(100 * 3 / 8),
        'moments/R5_IoU0.7': 100.0,
        'moments/R5_IoU0.7_chance': 100.0,
        'moments/IoU0.7_ceiling': 100.0,
        'moments/mIoU': 100.0,
        'moments/mIoU_chance': pytest.approx(100 * 3 / 8),
        'moments/best_time': 100.0,
        'moments/best_time_chance': pytest.approx(100 * 3 / 8),
        'moments/captions': 8.0,
    }
    plain = measured(dataset, tmp_path, moments=None)
    assert plain == {k: v for k, v in found.items() if k in plain}
    assert len(plain) + 15 == len(found)


def test_one_window_for_a_whole_video(tmp_path):
    """The nearest frame is right, although the window is not."""
    dataset = dataset_config(write_set(tmp_path, PLAIN))
    found = measured(dataset, tmp_path, moments=dict(segment=600))
    assert found['moments/best_time'] == 100
    assert found['moments/R1_IoU0.5'] == found['moments/R1_IoU0.5_chance']
    assert found['moments/mIoU'] == pytest.approx(100 * 3 / 8)


def slow_moments(
    videos: list[Scenes], length: float, stride: float, corpus: bool
) -> dict[str, float]:
    """Cut, look, score and count, one window after the other."""
    windows: list[tuple[int, list[float], torch.Tensor]] = []
    for number, scenes in enumerate(videos):
        total = sum(seconds for _, seconds in scenes)
        shown = [c for c, seconds in scenes for _ in range(int(seconds * 10))]
        start = 0.0
        while True:
            end = start + length
            is_last = total - end < stride / 2
            end = total if is_last else end
            # four a second, of which four are taken
            times = [start + k / 4 for k in range(99) if start + k / 4 < end]
            if len(times) > 4:
                picked = [int(k * (len(times) - 1) / 3) for k in range(4)]
                times = [times[k] for k in picked]
            frames = [COLOURS[shown[int(t * 10 + 1e-6)]] for t in times]
            windows.append((number, [start, end], torch.tensor(frames) / 255))
            if is_last:
                break
            start += stride
    head = MeanPoolingHead()
    hits = []
    for number, scenes in enumerate(videos):
        begin = 0.0
        for colour, seconds in scenes:
            moment = torch.tensor([[begin, begin + seconds]])
            begin += seconds
            pool = [w for w in windows if corpus or w[0] == number]
            text = TextFeatures(torch.tensor([COLOURS[colour]]) / 255)
            scores, overlaps = [], []
            for video, span, frames in pool:
                mask = torch.ones(1, len(frames), dtype=torch.bool)
                features = VideoFeatures(frames[None], mask)
                scores.append(float(head(text, features)))
                iou = float(temporal_iou(torch.tensor([span]), moment))
                overlaps.append(iou if video == number else 0.0)
            # the worst order that equal scores allow
            order = sorted(
                range(len(pool)),
                key=lambda x: (-round(scores[x], 5), overlaps[x]),
            )
            hits.append([overlaps[x] for x in order])
    return {
        f'R{k}_IoU{threshold}': 100
        * sum(any(x >= threshold - 1e-6 for x in own[:k]) for own in hits)
        / len(hits)
        for k in (1, 5)
        for threshold in (0.5, 0.7)
    } | {'mIoU': 100 * sum(own[0] for own in hits) / len(hits)}


@pytest.mark.parametrize(
    ('segment', 'overlap'), [(2.0, 0.0), (2.0, 0.5), (1.5, 0.25), (3.0, 0.75)]
)
def test_against_a_slow_reference(tmp_path, segment, overlap):
    random.seed(7)
    videos = [
        [
            (random.choice(list(COLOURS)), random.randint(10, 35) / 10)
            for _ in range(random.randint(1, 4))
        ]
        for _ in range(6)
    ]
    dataset = dataset_config(write_set(tmp_path, videos))
    options = dict(segment=segment, overlap=overlap, corpus=True)
    found = measured(dataset, tmp_path, moments=options)
    stride = segment * (1 - overlap)
    for corpus, prefix in ((False, 'moments/'), (True, 'moments/corpus_')):
        expected = slow_moments(videos, segment, stride, corpus)
        assert {
            key: found[f'{prefix}{key}'] for key in expected
        } == pytest.approx(expected, abs=1e-3)
    for options in (dict(batch_size=1), dict(loop=dict(video_batch=4))):
        again = measured(
            dataset,
            tmp_path,
            moments=dict(segment=segment, overlap=overlap),
            **options,
        )
        assert again == {k: found[k] for k in again}
