"""The last table of the quickstart, from hand-written metrics."""

import json
import re
import runpy
import sys

import pytest

TITLES = {
    'untrained': 0.9,
    'mean_pooling_story/test': 33.0,
    'eaglenet_story/test': 55.5,
}


@pytest.fixture
def results(tmp_path):
    metainfo = dict(
        num_videos=200,
        num_captions=600,
        **dict(chance_R1=0.5, chance_R5=2.5, chance_R10=5.0),
        order_blind_ceiling_R1=50.0,
        order_blind_ceiling_R5=99.0,
        order_blind_ceiling_R10=100.0,
    )
    annotation = tmp_path / 'test.json'
    annotation.write_text(json.dumps({'metainfo': metainfo}))
    for folder, value in TITLES.items():
        (tmp_path / folder).mkdir(parents=True)
        text = json.dumps({'metrics': {'t2v/R1': value, 'v2t/R1': value + 1}})
        (tmp_path / folder / 'metrics.json').write_text(text)
    return annotation


def print_report(repository, monkeypatch, annotation):
    arguments = ['quickstart_report.py', annotation, annotation.parent]
    monkeypatch.setattr(sys, 'argv', list(map(str, arguments)))
    path = repository / 'tools' / 'quickstart_report.py'
    runpy.run_path(str(path), run_name='__main__')


def test_rows_and_paths(repository, monkeypatch, results, capsys):
    print_report(repository, monkeypatch, results)
    output = capsys.readouterr().out
    assert '200 videos, 600 captions' in output
    rows = {
        row[0]: re.findall(r'[\d.]+', line)
        for line in output.splitlines()
        if (row := re.findall(r'│ (\w[^│]*?) +│', line))
    }
    assert rows['chance'] == ['0.5', '2.5', '5.0']
    assert rows['best that is blind to order'] == ['50.0', '99.0', '100.0']
    assert rows['EagleNet, untrained'] == ['0.9', '1.9']
    assert rows['mean pooling, trained equally'] == ['33.0', '34.0']
    assert rows['EagleNet'] == ['55.5', '56.5']
    for folder in TITLES:
        assert f'{folder}/metrics.json' in output.replace('\n', '')


def test_a_missing_test_is_an_error(repository, monkeypatch, results):
    (results.parent / 'untrained' / 'metrics.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'untrained.metrics\.json'):
        print_report(repository, monkeypatch, results)
