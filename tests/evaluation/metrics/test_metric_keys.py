"""Which way is up, for every key, by one rule."""

import pytest
import torch

from eaglenet_mm.evaluation import RetrievalRankMetric


@pytest.mark.parametrize(
    ('key', 'expected'),
    [
        ('t2v/R1', 'greater'),
        ('v2t/R50', 'greater'),
        ('t2v/MnR', 'less'),
        ('v2t/MdR', 'less'),
        ('t2v/ties', 'less'),
        ('Rsum', 'greater'),
        ('t2v_dsl/R1', 'greater'),
        ('v2t_querybank/MnR', 'less'),
        ('Rsum_dsl', 'greater'),
        ('t2v/R1_low', 'greater'),
        ('t2v_dsl/R1_high', 'greater'),
        ('t2v/R1_mean', 'greater'),
        ('t2v/MnR_mean', 'less'),
        ('t2v/R1_std', 'less'),
        ('Rsum_std', 'less'),
        ('Rsum_dsl_mean', 'greater'),
        ('v2t/shortlist_recall', 'greater'),
        ('t2v/shortlist_recall_mean', 'greater'),
        ('parts/msvd/t2v/MnR', 'less'),
        ('parts/a/b/v2t_dsl/R5_mean', 'greater'),
        ('t2v_dsl/mAP10', 'greater'),
        ('v2t/nDCG10', 'greater'),
    ],
)
def test_the_name_of_the_measure_decides(key, expected):
    metric = RetrievalRankMetric(
        post_process=[dict(type='dsl'), dict(type='querybank')],
        bootstrap=dict(),
    )
    assert metric.better_when(key) == expected


@pytest.mark.parametrize(
    'key',
    [
        't2v/R3',
        'R1',
        't2v/R1_',
        't2v/r1',
        't2v/MnR_low',
        'v2v/R1',
        't2v/loss',
        'videos_found',
        'texts_expected',
        'auto',
        '',
    ],
)
def test_what_is_no_measure(key):
    assert RetrievalRankMetric().better_when(key) is None


OPTIONS = [
    dict(),
    dict(bootstrap=dict(num_samples=20)),
    dict(post_process=[dict(type='dsl'), dict(type='querybank')]),
    dict(prefix='msvd', post_process=dict(type='dsl'), bootstrap=dict()),
]


def measured(metric, scores):
    columns = torch.arange(len(scores)) % scores.shape[1]
    metric.process(
        None,
        [
            dict(caption_index=i, video_index=int(column), scores=row)
            for i, (row, column) in enumerate(
                zip(scores, columns, strict=True)
            )
        ],
    )
    return metric.evaluate(len(scores))


@pytest.mark.parametrize('options', OPTIONS)
def test_right_answers_are_better_by_every_key(options):
    """The stated direction against the numbers of a good and a bad model."""
    metric = RetrievalRankMetric(**options)
    right = torch.eye(12).repeat(2, 1)
    noise = torch.randn(24, 12).round(decimals=1)
    bad, good = (measured(metric, x) for x in (noise - 3 * right, 5 * right))
    assert sorted(good) == sorted(metric.known_keys())
    for key, value in good.items():
        sign = {'greater': 1, 'less': -1}[metric.better_when(key)]
        assert sign * (value - bad[key]) >= 0, key
        if key.endswith(('R1', 'MnR', 'MdR', 'low', 'high')):
            assert sign * (value - bad[key]) > 0, key


def test_only_what_the_options_report(tmp_path):
    metric = RetrievalRankMetric(bootstrap=dict(), prefix='own')
    assert metric.better_when('own/t2v/R1_low') == 'greater'
    assert metric.better_when('t2v/R1') is None
    assert metric.better_when('own/t2v_dsl/R1') is None
    assert RetrievalRankMetric().better_when('t2v/R1_low') is None
    banked = RetrievalRankMetric(
        post_process=dict(type='querybank', bank_file='bank.npy')
    )
    assert banked.better_when('t2v_querybank/MnR') == 'less'
    for key in ('v2t_querybank/MnR', 'Rsum_querybank'):
        assert banked.better_when(key) is None
        assert key not in banked.known_keys()
