"""Moments, from videos to metrics."""

from __future__ import annotations

import pickle
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.datasets.video_readers import Timeline
from eaglenet_mm.datasets.windows import SampleWindows
from eaglenet_mm.evaluation.functional import (
    didemo_consensus,
    summarize_didemo,
    temporal_iou,
)
from eaglenet_mm.models.heads import MeanPoolingHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.engine.loops import tiny_retrieval  # noqa: F401  registers
from tests.engine.loops.coloured_scenes import (
    COLOURS,
    Scenes,
    build_runner,
    change_records,
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


def seen(scenes: Scenes, start: float, end: float) -> torch.Tensor:
    """Colours of the frames of a window: four of four a second."""
    shown = [c for c, seconds in scenes for _ in range(round(seconds * 10))]
    times = [start + k / 4 for k in range(999) if start + k / 4 < end]
    if len(times) > 4:
        picked = [int(k * (len(times) - 1) / 3) for k in range(4)]
        times = [times[k] for k in picked]
    return torch.tensor([COLOURS[shown[int(t * 10 + 1e-6)]] for t in times])


def slow_score(colour: str, frames: torch.Tensor) -> float:
    """Score one word with one window, alone."""
    text = TextFeatures(torch.tensor([COLOURS[colour]]) / 255)
    mask = torch.ones(1, len(frames), dtype=torch.bool)
    return float(
        MeanPoolingHead()(text, VideoFeatures(frames[None] / 255, mask))
    )


def slow_moments(
    videos: list[Scenes], length: float, stride: float, corpus: bool
) -> dict[str, float]:
    """Cut, look, score and count, one window after the other."""
    windows: list[tuple[int, list[float], torch.Tensor]] = []
    for number, scenes in enumerate(videos):
        total = sum(seconds for _, seconds in scenes)
        start = 0.0
        while True:
            end = start + length
            is_last = total - end < stride / 2
            end = total if is_last else end
            windows.append((number, [start, end], seen(scenes, start, end)))
            if is_last:
                break
            start += stride
    hits = []
    for number, scenes in enumerate(videos):
        begin = 0.0
        for colour, seconds in scenes:
            moment = torch.tensor([[begin, begin + seconds]])
            begin += seconds
            pool = [w for w in windows if corpus or w[0] == number]
            scores, overlaps = [], []
            for video, span, frames in pool:
                scores.append(slow_score(colour, frames))
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
    again = measured(
        dataset,
        tmp_path,
        moments=dict(segment=segment, overlap=overlap),
        batch_size=1,
        loop=dict(video_batch=4),
    )
    assert again == {k: found[k] for k in again}


def test_clips_are_parts_of_files(tmp_path):
    """Windows are cut from the clip; seconds are those of the file."""
    path = write_set(tmp_path, [[('red', 2), ('green', 2), ('red', 2)]])

    def cut(record: dict) -> None:
        record.update(start=1, end=5, captions=['red'], moments=[[[1, 2]]])

    change_records(path, cut)
    found = measured(
        dataset_config(path), tmp_path, moments=dict(segment=1, overlap=0)
    )
    # of four windows, the first and the last are red: a tie, against us
    assert found['moments/mIoU'] == 0
    assert found['moments/best_time'] == 0
    assert found['moments/R1_IoU0.7'] == 0
    assert found['moments/R5_IoU0.7'] == 100
    assert found['moments/R1_IoU0.7_chance'] == 25
    assert found['moments/best_time_chance'] == 25


def test_several_moments_are_alternatives(tmp_path):
    scenes = [('red', 2), ('green', 2), ('red', 2)]
    path = write_set(tmp_path, [scenes])

    def both(record: dict) -> None:
        record.update(captions=['red'], moments=[[[0, 2], [4, 6]]])

    found = measured(dataset_config(change_records(path, both)), tmp_path)
    assert found['moments/R1_IoU0.7'] == found['moments/best_time'] == 100
    assert found['moments/R1_IoU0.7_chance'] == pytest.approx(100 * 2 / 3)


def test_only_captions_with_moments_count(tmp_path):
    path = write_set(tmp_path, PLAIN)

    def forget(record: dict) -> None:
        if record['video_id'] != 'scenes1':
            del record['moments']

    found = measured(dataset_config(change_records(path, forget)), tmp_path)
    assert found['moments/captions'] == 2
    assert found['moments/R1_IoU0.7'] == 100
    assert found['moments/R1_IoU0.7_chance'] == 50


def test_joined_sets(tmp_path):
    """Their windows are one corpus; indices may repeat."""
    joined = dict(
        type='ConcatDataset',
        ignore_keys=['dataset', 'num_videos', 'num_captions'],
        datasets=[
            dataset_config(write_set(tmp_path, PLAIN, 'a')),
            dataset_config(write_set(tmp_path, [[('blue', 2.5)]], 'b')),
        ],
    )
    found = measured(joined, tmp_path, moments=dict(segment=2, corpus=True))
    assert found['moments/captions'] == 9
    assert found['moments/R1_IoU0.5'] == 100
    # nine windows, of which one is right
    assert found['moments/corpus_R1_IoU0.5_chance'] == pytest.approx(100 / 9)


def test_a_release_pipeline_is_read_by_the_clock(tmp_path):
    """It would include the second after a window, of the next scene."""
    path = write_set(tmp_path, PLAIN[:1])
    scores = []
    for mode in ('release', 'clean'):
        file = tmp_path / f'{mode}.pkl'
        dump = dict(type='DumpResults', out_file_path=str(file))
        dataset = dataset_config(path, sampling=dict(fps=1, mode=mode))
        measured(dataset, tmp_path, evaluator=[dump])
        with file.open('rb') as opened:
            rows = pickle.load(opened)
        scores.append(torch.stack([row['window_scores'] for row in rows]))
    assert torch.equal(*scores)
    # the codec rounds colours
    torch.testing.assert_close(scores[0], torch.eye(3), atol=0.01, rtol=0)


def test_a_header_that_says_too_much(tmp_path, monkeypatch):
    """A video that ends early is cut anew, from the frames it has."""
    path = write_set(tmp_path, [[('red', 2), ('green', 2), ('blue', 2)]])
    whole = measured(dataset_config(path), tmp_path)
    video = tmp_path / 'scenes0.mp4'
    whole_size = video.stat().st_size
    seen = []
    transform = SampleWindows.transform

    def first_too_long(self: Any, results: dict) -> dict:
        seen.append(dict(results))
        if len(seen) == 1:
            timeline = type(results['video_reader']).timeline
            longer = Timeline.at_rate(10, 90)
            with monkeypatch.context() as patch:
                patch.setattr(
                    type(results['video_reader']), 'timeline', longer
                )
                found = transform(self, results)
            assert type(results['video_reader']).timeline is timeline
            return found
        return transform(self, results)

    monkeypatch.setattr(SampleWindows, 'transform', first_too_long)
    again = measured(dataset_config(path), tmp_path)
    assert len(seen) == 2
    assert again == whole
    assert video.stat().st_size == whole_size


@pytest.mark.parametrize('workers', [0, 1])
def test_a_video_that_is_lost(tmp_path, workers):
    path = write_set(tmp_path, PLAIN)
    (tmp_path / 'scenes1.mp4').write_bytes(b'no video')
    runner = build_runner(
        dataset_config(path, on_missing='skip'),
        tmp_path,
        moments=dict(segment=2),
        num_workers=workers,
    )
    found = runner.test()
    assert found['videos_found'] == 2
    assert found['moments/captions'] == 6
    assert found['moments/R1_IoU0.7'] == 100


def test_noise_seeds_and_dumps(tmp_path):
    dataset = dataset_config(write_set(tmp_path, PLAIN[:1]))
    found = measured(
        dataset,
        tmp_path,
        model=dict(head=dict(type='TMASSHead', embed_dim=3, num_frames=4)),
        loop=dict(noise_seeds=2),
        evaluator=[
            dict(type='RetrievalRankMetric'),
            dict(type='DumpResults', out_file_path=str(tmp_path / 'x.pkl')),
        ],
    )
    assert {'moments/R1_IoU0.5_mean', 'moments/best_time_std'} <= set(found)
    assert not [k for k in found if re.search('(chance|ceiling|ons)_m', k)]
    with (tmp_path / 'x.pkl').open('rb') as file:
        rows = pickle.load(file)
    assert [row['window_scores'].shape for row in rows] == [(3,)] * 3
    assert rows[1]['moments'] == [[2.0, 4.0]]


def test_didemo(tmp_path):
    """The 21 moments of six chunks; what was annotated lies in them."""
    scenes = [('red', 5), ('green', 5), ('blue', 5), ('white', 13)]
    path = write_set(tmp_path, [scenes])
    answers = [
        [[0, 5]] * 3 + [[15, 20]],
        [[5, 10]] * 2 + [[5, 20], [20, 25]],
        [[0, 30], [15, 25]] * 2,
        [[0, 20], [0, 30], [0, 15], [0, 5]],
    ]
    change_records(path, lambda x: x.update(moments=answers))
    found = measured(
        dataset_config(path),
        tmp_path,
        moments=dict(didemo=True),
    )
    expected = []
    for (colour, _), times in zip(scenes, answers, strict=True):
        chunks = [(a, b) for a in range(6) for b in range(a, 6)]
        scores = [
            slow_score(colour, seen(scenes, 5 * a, min(5 * b + 5, 28)))
            for a, b in chunks
        ]
        chosen = [[start // 5, end // 5 - 1] for start, end in times]
        expected.append(
            didemo_consensus(
                torch.tensor(scores),
                torch.tensor(chunks),
                torch.tensor(chosen),
            )
        )
    for key, value in summarize_didemo(expected).items():
        assert found[f'moments/didemo_{key}'] == pytest.approx(value)
    assert expected[0] == (1, 1)
    assert found['moments/captions'] == 4


def test_sets_without_moments_are_refused_at_once(tmp_path):
    path = write_set(tmp_path, PLAIN)
    joined = dict(type='ParagraphDataset', dataset=dataset_config(path))
    with pytest.raises(
        ValueError, match=r'ParagraphDataset has any: .*MomentM'
    ):
        measured(joined, tmp_path)
    runner = build_runner(
        dataset_config(change_records(path, lambda x: x.pop('moments'))),
        tmp_path,
        moments=dict(segment=2),
    )
    with pytest.raises(ValueError, match='TextVideoDataset has any'):
        runner.test()
    assert runner.model.calls == []


def test_what_cannot_be_read_in_windows(tmp_path):
    runner = build_runner(
        dict(type='TinyVideos'), tmp_path, moments=dict(segment=2)
    )
    with pytest.raises(TypeError, match='that of TinyVideos has 0'):
        runner.test()


def test_heads_that_need_the_caption_of_a_video(tmp_path):
    dataset = dataset_config(write_set(tmp_path, [[('red', 2)]]))
    head = dict(
        type='TMASSHead', embed_dim=3, num_frames=4, evaluation='published'
    )
    with pytest.raises(ValueError, match=r"TMASSHead.*evaluation='pairwise'"):
        measured(dataset, tmp_path, model=dict(head=head))


def test_one_metric_at_a_time(tmp_path):
    dataset = dataset_config(write_set(tmp_path, [[('red', 2)]]))
    two = [dict(type='MomentMetric', segment=x) for x in (1, 2)]
    with pytest.raises(ValueError, match='one MomentMetric, but got 2'):
        measured(dataset, tmp_path, moments=None, evaluator=two)
