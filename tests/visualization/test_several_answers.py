"""Pages of joined sets, of several right videos, and of none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.visualization import compare_page, read_results
from eaglenet_mm.visualization.results_page import results_page
from tests.visualization.made_results import make_results
from tests.visualization.page_reader import Page
from tests.visualization.story_evaluation import build_runner, story_config


@pytest.fixture(scope='module')
def shown(story: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Test and val split joined; in the test split, several answers."""
    folder = tmp_path_factory.mktemp('several')
    content = json.loads((story / 'test.json').read_text())
    first, second, third = content['data_list'][:3]
    first['positives'] = [[second['video_id'], third['video_id']], []]
    second['captions'] = []
    meta = content['metainfo']
    del meta['num_videos'], meta['num_captions']
    meta['queries'] = [dict(caption='a red cat')]
    meta['dataset'] = 'several'
    (story / 'several.json').write_text(json.dumps(content))
    cfg = story_config(story, folder / 'work', 'mean_pooling')
    part = cfg.test_dataloader.dataset
    joined = dict(
        type='ConcatDataset',
        datasets=[
            dict(part, ann_file='several.json'),
            dict(part, ann_file='val.json'),
        ],
        ignore_keys=[
            'dataset', 'split', 'num_videos', 'num_captions', 'queries',
            *(
                f'{bound}_ceiling_R{k}'
                for bound in ('order_blind', 'mean_of_scenes')
                for k in (1, 5, 10)
            ),
        ],
    )  # fmt: skip
    runner = build_runner(
        story,
        folder / 'work',
        'mean_pooling',
        custom_hooks=[
            dict(type='ResultsPageHook', out_dir=str(folder / 'page')),
        ],
    )
    runner._test_dataloader['dataset'] = joined
    metrics = runner.test()
    return metrics, read_results(folder / 'page')


def test_results_tell_what_is_right(shown) -> None:
    metrics, results = shown
    assert len(results.video_ids) == 24
    assert len(results.captions) == 2 * 24 - 2 + 1
    assert results.right[:2] == [[0, 1, 2], [0]]
    lost = results.captions.index('a red cat')
    assert (results.ranks[lost], results.targets[lost]) == (0, -1)
    assert results.right[lost] == []
    asked = results.answerable_ranks()
    assert len(asked) == len(results.ranks) - 1
    hits = sum(rank == 1 for rank in asked)
    assert metrics['t2v/R1'] == pytest.approx(100 * hits / len(asked))
    assert results.about['dataset'].startswith('several + ')
    for query in results.queries:
        own = results.right_of(query.row)
        ranks = [x.rank for x in query.results if x.column in own]
        assert min(ranks, default=0) == results.ranks[query.row]
    assert all(not video.problem for video in results.videos)
    parts = {key.split('/')[1] for key in metrics if key.startswith('parts/')}
    assert len(parts) == 2


def test_captions_of_the_second_part_are_its_own(shown, story) -> None:
    _, results = shown
    records = json.loads((story / 'val.json').read_text())['data_list']
    ids = [record['video_id'] for record in records]
    assert results.video_ids[12:] == ids
    assert results.captions[-24:] == [
        caption for record in records for caption in record['captions']
    ]
    assert results.targets[-24:] == [12 + i for i in range(12) for _ in '12']


def test_the_page_says_it(shown) -> None:
    _, results = shown
    page = results_page(results)
    data = Page(page).data
    assert data['filters'][-1] == 'No right video'
    by_caption = {query['c']: query for query in data['queries']}
    assert by_caption['a red cat']['a'] == []
    assert by_caption['a red cat']['t'] == [0, 4]
    assert by_caption[results.captions[0]]['a'] == [0, 1, 2]
    assert 'text to video, several' in page
    assert '<th>nDCG10</th>' in page
    assert compare_page([results, results], ['x', 'y'])


def test_results_of_other_answers_are_not_compared() -> None:
    one = make_results()
    right = [[column] for column in one.targets]
    other = make_results(right=[[0, 1], *right[1:]])
    with pytest.raises(ValueError, match='right videos'):
        compare_page([one, other], ['x', 'y'])
    again = type(other).from_dict(json.loads(json.dumps(other.to_dict())))
    assert again.right == other.right
    assert 'right' not in one.to_dict()
