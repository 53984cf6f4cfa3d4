"""Several gloo processes give the numbers of one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tests.engine.loops import coloured_scenes, dist_worker
from tests.engine.loops.tiny_retrieval import build_runner
from tests.started import CONTEXT, run_ranks

pytestmark = [pytest.mark.dist, pytest.mark.slow]

SETTINGS = [
    dict(dataset=dict(num_videos=7, max_captions=3), batch_size=1),
    dict(dataset=dict(num_videos=7, max_captions=3), batch_size=3),
    dict(dataset=dict(num_videos=151), batch_size=7),
    # fewer videos than processes: the sampler repeats the only one
    dict(dataset=dict(num_videos=1, max_captions=1), batch_size=2),
    dict(
        dataset=dict(num_videos=5, max_captions=2),
        model=dict(noise=0.5),
        loop=dict(noise_seeds=2),
    ),
    # two-stage, in more than one block of captions
    dict(
        dataset=dict(num_videos=60, max_captions=30),
        model=dict(head=dict(type='BestFrameHead')),
        loop=dict(shortlist=9),
    ),
    # joined sets whose indices repeat, and a video without caption
    dict(
        dataset=dict(
            parts=[
                dict(num_videos=5, max_captions=3, name='a'),
                dict(num_videos=7, seed=5, name='b', no_captions=[2]),
            ]
        ),
        batch_size=3,
    ),
    # calls of the encoder that are filled up by repetition
    dict(dataset=dict(num_videos=7), loop=dict(video_batch=3)),
    # several right videos, and texts without one
    dict(
        dataset=dict(
            num_videos=9,
            max_captions=3,
            positives={0: ['clip0', 'clip4'], 3: [], 5: ['clip7', 'clip8']},
        ),
        batch_size=2,
    ),
    # one rank has no video at all
    dict(dataset=dict(num_videos=1, max_captions=1), round_up=False),
    dict(
        dataset=dict(num_videos=1, max_captions=1),
        model=dict(head=dict(type='BestFrameHead')),
        loop=dict(shortlist=1),
        round_up=False,
    ),
]


def load(path: Path):
    with path.open('rb') as file:
        return pickle.load(file)


def rows_of(path: Path) -> list[dict]:
    return sorted(load(path), key=lambda row: row['caption_index'])


@pytest.mark.parametrize(
    'world', [2, pytest.param(4, marks=pytest.mark.nightly)]
)
def test_processes_equal_one(world, tmp_path):
    run_ranks(
        dist_worker.evaluate,
        *(world, str(tmp_path / 'init'), str(tmp_path), SETTINGS),
        world=world,
    )
    for number, options in enumerate(SETTINGS):
        path = tmp_path / f'single{number}.pkl'
        metrics = build_runner(
            str(tmp_path),
            evaluator=[
                dict(type='RetrievalRankMetric'),
                dict(type='DumpResults', out_file_path=str(path)),
            ],
            **{**options, 'batch_size': 2},
        ).test()
        for rank in range(world):
            assert load(tmp_path / f'metrics{number}_{rank}.pkl') == metrics
        single = rows_of(path)
        double = rows_of(tmp_path / f'rows{number}.pkl')
        assert len(single) == len(double)
        for ours, theirs in zip(single, double, strict=True):
            assert ours['caption_index'] == theirs['caption_index']
            assert ours['video_id'] == theirs['video_id']
            assert torch.equal(ours['scores'], theirs['scores'])


def test_moments_of_two_processes(tmp_path):
    """Three videos: the sampler repeats one, which counts once."""
    videos = [
        [('red', 2.3), ('green', 1.1)],
        [('blue', 1.4), ('red', 3)],
        [('white', 1.2), ('green', 1.9), ('blue', 1)],
    ]
    path = coloured_scenes.write_set(tmp_path, videos)
    run_ranks(
        dist_worker.measure_moments,
        *(2, str(tmp_path / 'init'), str(tmp_path), str(path)),
    )
    metrics = coloured_scenes.build_runner(
        coloured_scenes.dataset_config(path),
        tmp_path,
        moments=dict(segment=1.5, overlap=0.25, corpus=True),
    ).test()
    assert 0 < metrics['moments/corpus_mIoU'] < metrics['moments/mIoU'] < 100
    for rank in (0, 1):
        assert load(tmp_path / f'moments_{rank}.pkl') == metrics


@pytest.mark.parametrize(
    'how',
    [
        pytest.param('encoding-die', marks=pytest.mark.nightly),
        pytest.param('rows-die', marks=pytest.mark.nightly),
        'rows-raise',
    ],
)
def test_a_rank_that_fails_ends_the_others(how, tmp_path):
    """They end with an error, long before a time-out, and do not hang."""
    processes = [
        CONTEXT.Process(
            target=dist_worker.fail,
            args=(rank, str(tmp_path / 'init'), str(tmp_path), how),
        )
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(60)
        # neither well nor still running; gloo may abort on the way out
        assert all(p.exitcode not in (0, None) for p in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    seconds, error = (tmp_path / 'error.txt').read_text().split(' ', 1)
    assert float(seconds) < 15
    assert 'onnection' in error


def test_gather_of_uneven_rows(tmp_path):
    run_ranks(dist_worker.gather, 2, str(tmp_path / 'init'), str(tmp_path))
    for rank in (0, 1):
        uneven, lacking = torch.load(tmp_path / f'{rank}.pt')
        assert uneven.flatten().tolist() == [0, 1, 2, 10]
        assert lacking.tolist() == [[True, False]]
