"""The metrics file is complete or absent."""

import json

import numpy as np
import pytest
from mmengine.config import Config

from eaglenet_mm.launching import metric_file


def test_write_metrics(tmp_path):
    path = tmp_path / 'new' / 'metrics.json'
    metrics = {'t2v/R1': np.float64(40.5), 'n': 3}
    metric_file.write_metrics(path, metrics, config='a.py')
    assert json.loads(path.read_text()) == {
        'config': 'a.py',
        'metrics': {'t2v/R1': 40.5, 'n': 3.0},
    }
    assert [file.name for file in path.parent.iterdir()] == ['metrics.json']


def test_start_metrics_forgets_an_earlier_test(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    path = tmp_path / 'metrics.json'
    path.write_text('{}')
    assert metric_file.start_metrics(cfg) == path
    assert not path.exists()


@pytest.mark.parametrize('single', [True, False])
def test_dump_scores_adds_a_metric(single):
    first = dict(type='RetrievalRankMetric')
    cfg = Config(dict(test_evaluator=first if single else [first]))
    metric_file.dump_scores(cfg, 'out.pkl')
    assert [item.type for item in cfg.test_evaluator] == [
        'RetrievalRankMetric',
        'DumpResults',
    ]
    assert cfg.test_evaluator[1].out_file_path == 'out.pkl'


def test_dump_scores_wants_a_pickle_and_an_evaluator():
    with pytest.raises(ValueError, match=r"'out\.json'"):
        metric_file.dump_scores(Config(), 'out.json')
    with pytest.raises(ValueError, match='needs a test_evaluator'):
        metric_file.dump_scores(Config(), 'out.pickle')
