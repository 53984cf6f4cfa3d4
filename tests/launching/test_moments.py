"""``--moments`` of tools/test.py."""

from __future__ import annotations

import argparse

import pytest
from mmengine.config import Config

from eaglenet_mm.launching.moments import (
    add_moment_arguments,
    add_moment_metric,
)


def metrics_of(*words: str, **cfg: object) -> list[dict]:
    parser = argparse.ArgumentParser()
    add_moment_arguments(parser)
    cfg.setdefault('test_evaluator', dict(type='RetrievalRankMetric'))
    config = Config(cfg)
    add_moment_metric(config, parser.parse_args(words))
    found = config.test_evaluator
    return [dict(x) for x in ([found] if isinstance(found, dict) else found)]


def test_what_is_added():
    assert metrics_of() == [dict(type='RetrievalRankMetric')]
    assert metrics_of('--moments', '2s', '--overlap', '0.5')[1:] == [
        dict(type='MomentMetric', overlap=0.5, corpus=False, segment=[2.0])
    ]
    assert metrics_of('--moments', '2,1.5m', '--corpus')[1:] == [
        dict(type='MomentMetric', overlap=0, corpus=True, segment=[2.0, 90.0])
    ]
    assert metrics_of('--moments', 'didemo')[1:] == [
        dict(type='MomentMetric', overlap=0, corpus=False, didemo=True)
    ]


def test_it_takes_the_place_of_one_in_the_config():
    both = [
        dict(type='MomentMetric', segment=9),
        dict(type='RetrievalRankMetric'),
    ]
    found = metrics_of('--moments', '2s', test_evaluator=both)
    assert [x['type'] for x in found] == [
        'RetrievalRankMetric',
        'MomentMetric',
    ]
    assert found[1]['segment'] == [2]


@pytest.mark.parametrize(
    ('words', 'match'),
    [
        (['--overlap', '0.5'], 'Add --moments 2s'),
        (['--corpus'], 'Add --moments 2s'),
        (['--moments', 'long'], "'long'"),
        (['--moments', '2s,'], "''"),
    ],
)
def test_what_makes_no_sense(words, match):
    with pytest.raises(ValueError, match=match):
        metrics_of(*words)


def test_a_test_without_an_evaluator():
    with pytest.raises(ValueError, match='needs a test_evaluator'):
        metrics_of('--moments', '2s', test_evaluator=None)
