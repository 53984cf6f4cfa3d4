from __future__ import annotations

import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope

from eaglenet_mm.engine.hooks import ResultsPageHook
from eaglenet_mm.engine.hooks.results_page_hook import write_results_pages
from eaglenet_mm.evaluation import KeptScores
from eaglenet_mm.visualization import read_results
from tests.engine.loops import tiny_retrieval
from tests.started import run_ranks
from tests.visualization.story_evaluation import build_runner


def page_hook(folder: Path, **options: Any) -> dict:
    return dict(type='ResultsPageHook', out_dir=str(folder), **options)


def test_metrics_stay_as_they_are(story, tmp_path) -> None:
    plain = build_runner(story, tmp_path / 'plain').test()
    runner = build_runner(
        story, tmp_path / 'shown', custom_hooks=[page_hook(tmp_path / 'page')]
    )
    assert runner.test() == plain
    assert sorted(os.listdir(tmp_path / 'page')) == [
        'results.html',
        'results.json',
    ]
    # nothing stays behind in the evaluator; a second test works as well
    assert len(runner.test_evaluator.metrics) == 1
    assert runner.test() == plain


@pytest.mark.nightly
def test_repeated_noise_shows_the_noise_of_the_checkpoint(
    story, tmp_path
) -> None:
    plain = build_runner(
        story, tmp_path / 'one', custom_hooks=[page_hook(tmp_path / 'plain')]
    )
    repeated = build_runner(
        story,
        tmp_path / 'two',
        custom_hooks=[page_hook(tmp_path / 'repeated')],
        test_cfg=dict(noise_seeds=2),
    )
    metrics = plain.test()
    assert {
        key: value
        for key, value in repeated.test().items()
        if not key.endswith(('_mean', '_std'))
    } == metrics
    first, second = (
        read_results(tmp_path / name) for name in ('plain', 'repeated')
    )
    assert first.top_scores == second.top_scores


def test_a_deferred_page_waits(story, tmp_path) -> None:
    folder = tmp_path / 'page'
    hook = page_hook(folder, deferred=True)
    runner = build_runner(story, tmp_path / 'work', custom_hooks=[hook])
    runner.test()
    assert os.listdir(folder) == []
    write_results_pages(runner)
    assert len(os.listdir(folder)) == 2


def test_a_bad_folder_is_told_before_the_test(story, tmp_path) -> None:
    (tmp_path / 'file').write_text('')
    runner = build_runner(
        story,
        tmp_path / 'work',
        custom_hooks=[page_hook(tmp_path / 'file' / 'page')],
    )
    encoded = []
    runner.model.encode_video = lambda *args: encoded.append(args)
    with pytest.raises(OSError, match='Results cannot be written to'):
        runner.test()
    assert encoded == []


def test_foreign_sets_and_loops_are_refused(tmp_path) -> None:
    hooks = [page_hook(tmp_path / 'page')]
    runner = tiny_retrieval.build_runner(str(tmp_path), custom_hooks=hooks)
    with pytest.raises(TypeError, match="TinyVideos has no 'get_data_info'"):
        runner.test()
    runner = tiny_retrieval.build_runner(str(tmp_path), custom_hooks=hooks)
    runner._test_loop = dict(type='TestLoop')
    with pytest.raises(TypeError, match=r"RetrievalTestLoop'.*is TestLoop"):
        runner.test()


def test_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match=r'--show-queries\) is 0'):
        ResultsPageHook('folder', num_queries=0)


def test_a_video_that_is_gone_meanwhile_is_shown_as_such(
    own_story, tmp_path
) -> None:
    hook = page_hook(tmp_path / 'page', deferred=True)
    runner = build_runner(own_story, tmp_path / 'work', custom_hooks=[hook])
    runner.test()
    lost = runner.test_dataloader.dataset.get_data_info(3)['video']
    Path(lost).unlink()
    write_results_pages(runner)
    results = read_results(tmp_path / 'page')
    problems = {x.column: x.problem for x in results.videos if x.problem}
    assert list(problems) == [3]
    assert Path(lost).name in problems[3]
    page = (tmp_path / 'page' / 'results.html').read_text()
    assert '1 of the 12 videos shown cannot be read now' in page


@pytest.mark.nightly
def test_a_set_with_lost_videos_says_so(own_story, tmp_path) -> None:
    settings = dict(
        custom_hooks=[page_hook(tmp_path / 'page')],
        test_dataloader=dict(dataset=dict(on_missing='skip')),
    )
    runner = build_runner(own_story, tmp_path / 'work', **settings)
    lost = runner.test_dataloader.dataset.get_data_info(3)
    Path(lost['video']).unlink()
    runner.test()
    results = read_results(tmp_path / 'page')
    assert len(results.video_ids) == 11
    assert lost['video_id'] not in results.video_ids
    assert not set(lost['captions']) & set(results.captions)
    page = (tmp_path / 'page' / 'results.html').read_text()
    assert 'Not the complete set: 11 of 12 videos, 22 of 24 texts.' in page


def test_kept_scores_are_in_order() -> None:
    kept = KeptScores()
    rows = [
        dict(caption_index=c, video_index=c, scores=torch.full((3,), float(c)))
        for c in (2, 0, 1)
    ]
    kept.process(dict(num_captions=3, num_videos=3), rows)
    assert kept.evaluate(1) == {}
    assert kept.scores[:, 0].tolist() == [0, 1, 2]
    assert kept.columns.tolist() == [0, 1, 2]


def show(rank: int, folder: str, story: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/init',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    init_default_scope('eaglenet_mm')
    runner = build_runner(
        Path(story),
        Path(folder) / 'work',
        custom_hooks=[page_hook(Path(folder) / 'two')],
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None
        ),
    )
    metrics = runner.test()
    with open(f'{folder}/metrics{rank}.pkl', 'wb') as file:
        pickle.dump(metrics, file)
    del runner  # before the group: else DDP's destructor can deadlock
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.nightly
@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_write_the_page_of_one(story, tmp_path) -> None:
    run_ranks(show, str(tmp_path), str(story))
    single = build_runner(
        story, tmp_path / 'work', custom_hooks=[page_hook(tmp_path / 'one')]
    ).test()
    for rank in range(2):
        with open(f'{tmp_path}/metrics{rank}.pkl', 'rb') as file:
            assert pickle.load(file) == single
    one, two = (read_results(tmp_path / name) for name in ('one', 'two'))
    assert two.about.pop('written').endswith(', by 2 processes')
    del one.about['written']
    one.about.pop('config'), two.about.pop('config')
    assert one == two
