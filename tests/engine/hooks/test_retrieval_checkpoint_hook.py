"""What is called best is best, and nothing is before it was trained."""

from __future__ import annotations

import shutil

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook

from eaglenet_mm.engine.hooks import (
    RetrievalCheckpointHook,
    RetrievalEarlyStoppingHook,
    StrictResumeHook,
)
from eaglenet_mm.evaluation import RetrievalRankMetric
from eaglenet_mm.registry import HOOKS, METRICS
from eaglenet_mm.utils import load_checkpoint_file
from tests.engine.loops.tiny_retrieval import build_runner, loader_config

# by hand: best at 2 by MnR and MdR, at 3 by R1, at 4 by ties
VALUES = {
    't2v/R1': [10.0, 20.0, 40.0, 30.0],
    't2v/MnR': [9.0, 2.0, 5.0, 7.0],
    'v2t/MdR': [4.0, 1.0, 3.0, 2.0],
    't2v/ties': [4.0, 3.0, 2.0, 1.0],
    'Rsum': [40.0, 30.0, 20.0, 10.0],
    't2v_dsl/MnR': [3.0, 2.0, 1.0, 4.0],
    'parts/msvd/t2v/MnR': [2.0, 4.0, 1.0, 5.0],
    't2v/mAP10': [1.0, 2.0, 4.0, 3.0],
}
BEST = {
    't2v/R1': 3,
    't2v/MnR': 2,
    'v2t/MdR': 2,
    't2v/ties': 4,
    'Rsum': 1,
    't2v_dsl/MnR': 3,
    'parts/msvd/t2v/MnR': 3,
    't2v/mAP10': 3,
}


@METRICS.register_module()
class ToldRanks(RetrievalRankMetric):
    """The rank metric, whose numbers are told validation by validation."""

    def __init__(self, start: int = 0, values: dict | None = None) -> None:
        super().__init__(post_process=dict(type='dsl'))
        self.count, self.values = start, values or VALUES

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.count += 1
        return {k: v[self.count - 1] for k, v in self.values.items()}


@METRICS.register_module()
class OwnAccuracy(BaseMetric):
    """A metric of somebody else, which states nothing."""

    def process(self, data_batch, data_samples) -> None: ...

    def evaluate(self, size: int) -> dict[str, float]:
        return {'accuracy': 1.0, 'strangeness': 2.0}

    def compute_metrics(self, results) -> dict: ...


def build(folder, hook=None, *, epochs=4, hooks=(), metric=None, **options):
    train_cfg = options.pop('train_cfg', {})
    runner = build_runner(
        str(folder),
        train_dataloader=loader_config(2, num_videos=4),
        train_cfg=dict(by_epoch=True, max_epochs=epochs) | train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3))
        | options.pop('optim_wrapper', {}),
        evaluator=metric or dict(type='ToldRanks'),
        **options,
    )
    if hook is not None:
        runner.register_hook(dict(type='CheckpointHook', **hook))
    for other in hooks:
        runner.register_hook(other)
    return runner


def best_files(folder):
    return sorted(path.name for path in folder.glob('best_*.pth'))


def test_ours_answers_to_the_names_of_mmengine():
    assert HOOKS.get('CheckpointHook') is RetrievalCheckpointHook
    assert HOOKS.get('EarlyStoppingHook') is RetrievalEarlyStoppingHook
    assert HOOKS.get('mmengine.CheckpointHook') is CheckpointHook


@pytest.mark.nightly  # the list below keeps all of them at once
@pytest.mark.parametrize('key', VALUES)
@pytest.mark.parametrize('given', [False, True])
def test_each_key_keeps_its_best(tmp_path, key, given):
    rules = {'R1': 'greater', 'm': 'greater', 'P10': 'greater'}
    rule = next((r for end, r in rules.items() if key.endswith(end)), 'less')
    build(tmp_path, dict(save_best=key, rule=rule if given else None)).train()
    name = key.replace('/', '_')
    assert best_files(tmp_path) == [f'best_{name}_epoch_{BEST[key]}.pth']


def test_a_list_may_mix_directions(tmp_path):
    build(tmp_path, dict(save_best=list(VALUES))).train()
    assert best_files(tmp_path) == sorted(
        f'best_{key.replace("/", "_")}_epoch_{epoch}.pth'
        for key, epoch in BEST.items()
    )


@pytest.mark.parametrize(('first', 'epoch'), [('t2v/MnR', 2), ('t2v/R1', 3)])
def test_auto_takes_the_first_key_and_its_rule(tmp_path, first, epoch):
    values = {first: VALUES[first], **VALUES}
    metric = dict(type='ToldRanks', values=values)
    build(tmp_path, dict(save_best='auto'), metric=metric).train()
    name = first.replace('/', '_')
    assert best_files(tmp_path) == [f'best_{name}_epoch_{epoch}.pth']


class NoStep(Hook):
    """Fails when a step is made."""

    def before_train_iter(self, *args, **kwargs):
        raise AssertionError('a step was made')


@pytest.mark.parametrize(
    ('hook', 'error', 'match'),
    [
        (
            dict(save_best='t2v/MnR', rule='greater'),
            ValueError,
            r"'greater' for 't2v/MnR' would keep the worst.*lower is better",
        ),
        (
            dict(save_best=['t2v/R1', 't2v/MnR'], rule='greater'),
            ValueError,
            "'t2v/MnR' would keep the worst",
        ),
        (
            dict(save_best='t2v/R1', rule='less'),
            ValueError,
            'higher is better',
        ),
        (
            dict(save_best='t2v/R3'),
            KeyError,
            r't2v/R3.*Known are t2v/R1, t2v/R5.*v2t_dsl/MnR.*parts/<name>',
        ),
        (dict(save_best='t2v_querybank/R1'), KeyError, 'Known are'),
        (dict(save_best='videos_found'), KeyError, 'no key .* direction'),
        (dict(save_best='t2v/R1_mean'), KeyError, r'val_cfg\.noise_seeds'),
        (dict(save_best='t2v/shortlist_recall'), KeyError, 'shortlist is set'),
    ],
)
def test_refused_before_the_first_step(tmp_path, hook, error, match):
    runner = build(tmp_path, hook, hooks=[NoStep()])
    with pytest.raises(error, match=match):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_a_rule_is_one_of_two(tmp_path):
    with pytest.raises(ValueError, match="but got 'upwards'"):
        build(tmp_path, dict(save_best='t2v/R1', rule='upwards'))


def test_a_key_the_evaluation_did_not_report(tmp_path):
    """Known by its form, and of a part that is not there."""
    runner = build(tmp_path, dict(save_best='parts/other/t2v/R1'))
    with pytest.raises(KeyError, match=r'reported t2v/R1, t2v/MnR'):
        runner.train()


@pytest.mark.parametrize(
    ('hook', 'match'),
    [
        (dict(save_best='accuracy'), None),
        (dict(save_best='strangeness', rule='less'), None),
        (dict(save_best='strangeness'), 'Cannot infer the rule'),
    ],
)
def test_other_metrics_keep_the_rules_of_mmengine(tmp_path, hook, match):
    metric = [dict(type='OwnAccuracy'), dict(type='ToldRanks')]
    runner = build(tmp_path, hook, metric=metric, epochs=1)
    if match is None:
        runner.train()
        name = f'best_{hook["save_best"]}_epoch_1.pth'
        assert best_files(tmp_path) == [name]
    else:
        with pytest.raises(ValueError, match=match):
            runner.train()


class ValidateFirst(Hook):
    """Measure the untrained model, as many trainings do."""

    def before_train(self, runner):
        runner.val_loop.run()


@pytest.mark.parametrize(
    'accumulation', [pytest.param(1, marks=pytest.mark.nightly), 3]
)
def test_nothing_is_best_before_a_step(tmp_path, accumulation):
    """Here the first numbers, of random weights, would win by R1."""
    values = {'t2v/R1': [90.0, 10.0, 20.0, 15.0, 1.0]}
    metric = dict(type='ToldRanks', values=values)
    runner = build(
        tmp_path,
        dict(save_best='t2v/R1'),
        metric=metric,
        hooks=[ValidateFirst()],
        optim_wrapper=dict(accumulative_counts=accumulation),
    )
    runner.train()
    # with three accumulated iterations, the first epoch of two has no step
    assert best_files(tmp_path) == ['best_t2v_R1_epoch_2.pth']
    content = load_checkpoint_file(tmp_path / best_files(tmp_path)[0])
    hub = content['message_hub']['runtime_info']
    assert hub['best_score'] == 20.0


def test_a_validation_alone_saves_nothing(tmp_path):
    runner = build(tmp_path, dict(save_best='t2v/R1'))
    assert runner.val()['t2v/R1'] == 10.0
    assert best_files(tmp_path) == []


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (dict(val_begin=5), 'val_begin is 5, but max_epochs is 4'),
        (dict(val_interval=0), 'val_interval must be at least 1'),
        (
            dict(by_epoch=False, max_iters=6, max_epochs=None, val_begin=7),
            'val_begin is 7, but max_iters is 6',
        ),
    ],
)
def test_a_validation_that_never_comes(tmp_path, settings, match):
    settings = {k: v for k, v in settings.items() if v is not None}
    if not settings.get('by_epoch', True):
        settings = dict(type='IterBasedTrainLoop', **settings)
        settings.pop('by_epoch')
    runner = build(tmp_path, dict(save_best='t2v/R1'), hooks=[NoStep()])
    if 'type' in settings:
        runner._train_loop = settings
    else:
        runner._train_loop.update(settings)
    with pytest.raises(ValueError, match=match):
        runner.train()


def test_iteration_loops_keep_their_best(tmp_path):
    runner = build(
        tmp_path, dict(save_best='t2v/MnR', by_epoch=False, interval=2)
    )
    runner._train_loop = dict(
        type='IterBasedTrainLoop', max_iters=8, val_interval=2
    )
    runner.train()
    assert best_files(tmp_path) == ['best_t2v_MnR_iter_4.pth']


STOPPING = {'t2v/MnR': [9.0, 5.0, 6.0, 7.0, 8.0, 1.0]}


def stopped_at(folder, monitor='t2v/MnR', patience=2, start=0, **options):
    metric = dict(type='ToldRanks', values=STOPPING, start=start)
    hook = dict(
        type='EarlyStoppingHook',
        monitor=monitor,
        patience=patience,
        **options.pop('hook', {}),
    )
    runner = build(
        folder,
        dict(interval=1, save_best='t2v/MnR'),
        epochs=6,
        metric=metric,
        custom_hooks=[hook],
        **options,
    )
    runner.train()
    return runner.epoch


def test_early_stopping_asks_the_metric(tmp_path):
    """MMEngine's, told 'greater', would go on while the mean rank grows."""
    assert stopped_at(tmp_path) == 4
    assert best_files(tmp_path) == ['best_t2v_MnR_epoch_2.pth']


@pytest.mark.parametrize(
    'epoch',
    [
        pytest.param(1, marks=pytest.mark.nightly),
        pytest.param(3, marks=pytest.mark.nightly),
        2,
    ],
)
def test_resumed_early_stopping_stops_at_the_same_epoch(tmp_path, epoch):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    assert stopped_at(whole) == 4
    at = stopped_at(
        resumed,
        start=epoch,
        resume=True,
        load_from=str(whole / f'epoch_{epoch}.pth'),
    )
    assert at == 4


def test_resuming_what_was_stopped_early(tmp_path):
    assert stopped_at(tmp_path) == 4
    again = dict(start=4, resume=True)
    assert stopped_at(tmp_path, **again) == 4
    assert stopped_at(tmp_path, patience=3, **again) == 5


@pytest.mark.parametrize(
    ('options', 'error', 'match'),
    [
        (dict(hook=dict(rule='greater')), ValueError, 'keep the worst'),
        (dict(monitor='t2v/R2'), KeyError, 'Known are'),
        (dict(monitor='parts/x/t2v/R1'), KeyError, 'reported t2v/MnR'),
    ],
)
def test_early_stopping_refuses(tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        stopped_at(tmp_path, **options)


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (
            dict(param_scheduler=dict(type='ReduceOnPlateauLR', rule='less')),
            r"ReduceOnPlateauLR watches 't2v/R1'.*Set rule='greater'",
        ),
        (
            dict(hooks=[EarlyStoppingHook('t2v/R1', rule='less')]),
            r"EarlyStoppingHook watches 't2v/R1' with rule='less'",
        ),
        (
            dict(hooks=[CheckpointHook(save_best='t2v/R1', rule='less')]),
            r"CheckpointHook watches 't2v/R1'",
        ),
    ],
)
def test_whatever_else_has_a_rule(tmp_path, settings, match):
    scheduler = settings.get('param_scheduler')
    if scheduler is not None:
        settings['param_scheduler'] = dict(
            scheduler, monitor='t2v/R1', by_epoch=True
        )
    runner = build(tmp_path, dict(save_best='t2v/R1'), **settings)
    # of every training of the tools, also of one without our checkpoint hook
    runner.register_hook(StrictResumeHook())
    with pytest.raises(ValueError, match=match):
        runner.train()


def test_a_resumed_run_leaves_other_folders_alone(tmp_path):
    """By the path in the checkpoint, MMEngine removes the other's best."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    values = {'t2v/R1': [10.0, 20.0, 30.0, 40.0]}
    metric = dict(type='ToldRanks', values=values)
    build(
        first, dict(interval=1, save_best=['t2v/R1']), epochs=2, metric=metric
    ).train()
    shutil.copytree(first, second)
    build(
        second,
        dict(interval=1, save_best=['t2v/R1']),
        metric=dict(metric, start=2),
        resume=True,
        load_from=str(first / 'epoch_2.pth'),
    ).train()
    assert best_files(first) == ['best_t2v_R1_epoch_2.pth']
    assert best_files(second) == ['best_t2v_R1_epoch_4.pth']


def test_published_without_a_best(tmp_path):
    """A validation that was never better has nothing to publish."""
    values = {key: [float('-inf')] for key in ('t2v/R1', 't2v/R5')}
    hook = dict(
        save_best=list(values),
        interval=1,
        published_keys=['meta', 'state_dict'],
    )
    metric = dict(type='ToldRanks', values=values)
    build(tmp_path, hook, epochs=1, metric=metric).train()
    assert best_files(tmp_path) == []
    (published,) = tmp_path.glob('epoch_1-*.pth')
    content = load_checkpoint_file(published)
    assert set(content) == {'meta', 'state_dict'}
    assert isinstance(content['state_dict']['visual.weight'], torch.Tensor)
