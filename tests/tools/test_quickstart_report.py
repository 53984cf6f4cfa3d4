"""What the quickstart prints at its end, from hand-written metrics."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import pytest

from eaglenet_mm.apis import RetrievalInferencer

TITLES = {
    'untrained': 0.9,
    'mean_pooling_story/test': 33.0,
    'x_pool_story/test': 44.0,
    'eaglenet_story/test': 55.5,
}
RECORDS = [
    dict(
        video_id='a',
        video='test/a.mp4',
        captions=['a ring grows', 'a bar falls'],
        moments=[[[0, 2]], [[2, 5]]],
    ),
]


@pytest.fixture
def results(tmp_path):
    metainfo = dict(
        num_videos=200,
        num_captions=600,
        **dict(chance_R1=0.5, chance_R5=2.5, chance_R10=5.0),
        **{
            f'{name}_R{k}': value
            for name in ('order_blind_ceiling', 'mean_of_scenes_ceiling')
            for k, value in ((1, 50.0), (5, 99.0), (10, 100.0))
        },
    )
    annotation = tmp_path / 'test.json'
    annotation.write_text(
        json.dumps(dict(metainfo=metainfo, data_list=RECORDS))
    )
    for folder, value in TITLES.items():
        (tmp_path / folder).mkdir(parents=True)
        metrics = {
            't2v/R1': value,
            'v2t/R1': value + 1,
            'moments/corpus_R1_IoU0.5': value + 2,
            'moments/corpus_R1_IoU0.5_chance': 12.5,
            'moments/R1_IoU0.5': value + 3,
            'moments/R1_IoU0.5_chance': 45.5,
        }
        text = json.dumps({'metrics': metrics})
        (tmp_path / folder / 'metrics.json').write_text(text)
    return annotation


@pytest.fixture
def report(repository, monkeypatch, results, capsys):
    """Print the report on these hits, one for each query."""

    def run(hits, *options):
        asked = []

        class Inferencer:
            def search(self, queries, **_):
                asked.extend(queries)
                return [[hits.get(query, hit('b', 0, 2))] for query in queries]

        monkeypatch.setattr(
            RetrievalInferencer, 'of_index', lambda where: Inferencer()
        )
        folder = results.parent
        arguments = ['quickstart_report.py', results, folder, 'index']
        monkeypatch.setattr(sys, 'argv', [*map(str, arguments), *options])
        path = repository / 'tools' / 'quickstart_report.py'
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out, asked

    return run


def hit(video, start, end):
    return SimpleNamespace(
        path=f'/data/{video}.mp4', start=start, end=end, best_time=start
    )


def test_the_table(report):
    output, _ = report({})
    assert '200 videos of scenes never seen' in output
    rows = {
        row[0]: re.findall(r'[\d.]+', line.split(row[0], 1)[1])
        for line in output.splitlines()
        if (row := re.findall(r'│ (\w[^│]*?) +│', line))
    }
    assert rows['chance'] == ['0.5', '2.5', '5.0', '12.5', '45.5']
    assert rows['best that is blind to order'] == ['50.0', '99.0', '100.0']
    assert rows['EagleNet, untrained'] == ['0.9', '1.9', '2.9', '3.9']
    assert rows['mean pooling'] == ['33.0', '34.0', '35.0', '36.0']
    assert rows['X-Pool'] == ['44.0', '45.0', '46.0', '47.0']
    assert rows['EagleNet'] == ['55.5', '56.5', '57.5', '58.5']
    assert 'eaglenet-mm serve index' in output


def test_the_first_caption_that_is_found(report):
    # the right video at the wrong time is not found
    hits = {
        'a ring grows': hit('a', 3, 5),
        'a bar falls': hit('a', 2.5, 4.5),
    }
    output, asked = report(hits)
    assert asked == ['a ring grows', 'a bar falls']
    assert 'Search: "a bar falls"' in output
    assert 'number 2; 1 of the first 2 are' in output
    assert '2.5 to 4.5 s' in output
    assert '<- this is what it tells' in output


def test_nothing_is_called_right_that_is_not(report):
    output, _ = report({})
    assert '0 of the first 2 are' in output
    assert '<-' not in output


def test_a_query_of_the_user(report):
    output, asked = report({}, '--query', 'something else')
    assert asked == ['something else']
    assert 'Search: "something else"' in output
    assert 'number' not in output


def test_a_missing_test_is_an_error(report, results):
    (results.parent / 'untrained' / 'metrics.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'untrained.metrics\.json'):
        report({})
