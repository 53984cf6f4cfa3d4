"""What a page shows is what the evaluation found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.visualization import read_results
from tests.visualization.story_evaluation import build_runner


@pytest.fixture(scope='module')
def shown(story: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp('shown')
    runner = build_runner(
        story,
        folder / 'work',
        custom_hooks=[
            dict(type='ResultsPageHook', out_dir=str(folder / 'page')),
        ],
    )
    metrics = runner.test()
    return runner, metrics, read_results(folder / 'page')


def test_ranks_give_the_metrics(shown) -> None:
    _, metrics, results = shown
    assert results.metrics == metrics
    ranks = torch.tensor(results.ranks)
    assert len(ranks) == 24
    for k in (1, 5, 10):
        recall = 100 * float((ranks <= k).double().mean())
        assert recall == pytest.approx(metrics[f't2v/R{k}'])
    ranks = torch.tensor(results.video_ranks).double()
    assert float(ranks.mean()) == pytest.approx(metrics['v2t/MnR'])


def test_captions_and_videos_are_those_of_the_file(shown) -> None:
    runner, _, results = shown
    dataset = runner.test_dataloader.dataset
    items = [dataset.get_data_info(place) for place in range(12)]
    assert results.video_ids == [item['video_id'] for item in items]
    assert results.captions == [x for item in items for x in item['captions']]
    assert results.targets == [place for place in range(12) for _ in '12']
    assert results.num_frames == 8


def test_scores_are_those_of_the_head(shown) -> None:
    runner, _, results = shown
    model = runner.model.eval()
    items = [runner.test_dataloader.dataset[place] for place in range(12)]
    with torch.no_grad():
        data = model.data_preprocessor(
            runner.test_dataloader.collate_fn(items), False
        )['inputs']
        video = model.encode_video(data['pixels'], data['frame_mask'])
        text = model.encode_text(data['token_ids'])
        scores = model.head(text, video)
        found = model.head.explain(text, video)
    for query in results.queries:
        for item in query.results:
            pair = (query.row, item.column)
            assert item.score == pytest.approx(float(scores[pair]), abs=1e-5)
            attention = found.frame_weights['attention'][pair]
            assert item.frame_weights['attention'] == pytest.approx(
                attention.tolist(), abs=1e-3
            )
            beta = found.text_weights['beta'][pair]
            assert item.text_weights['beta'] == pytest.approx(
                beta.tolist(), abs=1e-3
            )


def test_every_query_shows_its_right_video(shown) -> None:
    _, _, results = shown
    assert [query.row for query in results.queries] == list(range(24))
    for query in results.queries:
        own = results.targets[query.row]
        ranks = [x.rank for x in query.results if x.column == own]
        assert ranks == [results.ranks[query.row]]
        expected = [1, 2, 3, 4, 5] + [r for r in ranks if r > 5]
        assert [item.rank for item in query.results] == expected
        top = [item.column for item in query.results[:5]]
        assert results.top_columns[query.row] == top


def test_every_video_shown_has_its_frames(shown) -> None:
    _, _, results = shown
    columns = {item.column for q in results.queries for item in q.results}
    assert [video.column for video in results.videos] == sorted(columns)
    for video in results.videos:
        assert (video.num_images, video.height) == (8, 24)
        assert video.problem == ''


def test_maps_before_and_after(shown) -> None:
    _, _, results = shown
    kinds = [(item.text_name, item.centred) for item in results.projections]
    assert kinds == [
        ('text', False),
        ('text', True),
        ('enriched text', False),
        ('enriched text', True),
    ]
    for item in results.projections:
        assert item.rows == list(range(0, 24, 2))  # a caption a video


def test_other_heads_show_what_they_have(story, tmp_path) -> None:
    runner = build_runner(
        story,
        tmp_path / 'work',
        'mean_pooling',
        custom_hooks=[
            dict(type='ResultsPageHook', out_dir=str(tmp_path), num_queries=5)
        ],
    )
    runner.test()
    results = read_results(tmp_path)
    assert len(results.queries) == 5
    assert results.selection.startswith('5 of 24 queries are shown')
    assert results.about['method'] == 'MeanPooling'
    item = results.queries[0].results[0]
    assert set(item.frame_weights) == {'cosine'}
    assert item.text_weights == {}
    assert [x.text_name for x in results.projections] == ['text', 'text']


def test_two_stage_scores_are_not_shown_as_scores(story, tmp_path) -> None:
    runner = build_runner(
        story,
        tmp_path / 'work',
        test_cfg=dict(shortlist=3),
        custom_hooks=[dict(type='ResultsPageHook', out_dir=str(tmp_path))],
    )
    runner.test()
    results = read_results(tmp_path)
    assert '3 videos a caption shortlisted' in results.about['scoring']
    for query in results.queries:
        first, _, third, fourth = (x.score for x in query.results[:4])
        assert first >= third > -1.001
        assert fourth < -1e18  # the page writes: first stage
    assert all(abs(item.margin) < 3 for item in results.confusions)
    assert all(abs(x) < 2 for row in results.matrix.scores for x in row)
