"""Comparisons: what is run, found again, reported and counted.

The logic is tested with stand-ins for the two tools, which write what the
real ones would; one comparison on a very small story set uses the real ones.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from eaglenet_mm.apis import comparison
from eaglenet_mm.apis.comparison import (
    Comparison,
    digest,
    mean_and_spread,
    rounded,
    table_of,
)
from eaglenet_mm.apis.model_cost import measure_cost
from eaglenet_mm.apis.tool_process import run_tool
from eaglenet_mm.datasets.story import write_story_dataset
from tests.some_cases import mostly_nightly
from tests.started import start

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'

#: Both log their arguments. A training fails where the config says so, and
#: waits for ever where it says so unless it goes on from a checkpoint.
TRAIN = """
import json, os, sys, time
from pathlib import Path
arguments = sys.argv[1:]
settings, folder = arguments[0], Path(arguments[2])
name = next(p for p in Path(settings).parts if p.startswith('model'))
with (Path(settings).parents[2] / 'calls').open('a') as file:
    file.write(f'train {name[:6]} {arguments[3:]}\\n')
text = Path(settings).read_text()
if "'fail'" in text:
    sys.exit('no such backbone')
folder.mkdir(parents=True, exist_ok=True)
(folder / 'pid').write_text(str(os.getpid()))
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
if "'wait'" in text and '--resume' not in arguments:
    time.sleep(60)
for epoch in (1, 2):
    (folder / f'best_epoch_{epoch}.pth').touch()
    time.sleep(0.02)
"""
TEST = """
import json, sys
from pathlib import Path
settings, checkpoint, _, folder = sys.argv[1:]
with (Path(settings).parents[2] / 'calls').open('a') as file:
    file.write(f'test {Path(checkpoint).name}\\n')
Path(folder).mkdir(parents=True, exist_ok=True)
seed = int(Path(settings).parent.name.removeprefix('seed'))
metrics = {key: 40.0 + seed for key in ('t2v/R1', 't2v/R5', 't2v/R10')}
text = json.dumps(dict(metrics={**metrics, 'v2t/R1': 30.0}))
broken = "'broken'" in Path(settings).read_text()
(Path(folder) / 'metrics.json').write_text(text[:9] if broken else text)
"""


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / 'tools'
    folder.mkdir()
    (folder / 'train.py').write_text(TRAIN)
    (folder / 'test.py').write_text(TEST)
    return folder


@pytest.fixture
def compare(tools, tmp_path, monkeypatch):
    """Run a comparison of stand-ins; give its result, lines and calls."""
    costs = dict(head_parameters=1234, parameters=1.2e6, flops_per_pair=192)

    def no_cost(config):
        from eaglenet_mm.apis.model_cost import ModelCost

        if config.get('behaviour') == 'fail':
            raise ImportError('no such backbone')
        return ModelCost(**costs)

    monkeypatch.setattr(
        'eaglenet_mm.apis.comparison.measure_cost_apart', no_cost
    )

    def run(seeds=2, epochs=None, **configs):
        lines = []
        result = Comparison(
            {name: Config(settings) for name, settings in configs.items()},
            seeds,
            tmp_path / 'runs',
            tools,
            epochs,
            lines.append,
        ).run()
        calls = tmp_path / 'runs' / 'calls'
        told = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return result, lines, told

    return run


def settings(epochs=3, **others):
    return dict(train_cfg=dict(max_epochs=epochs), **others)


def test_every_config_is_run_with_every_seed_once(compare, tmp_path):
    configs = dict(model1=settings(), model2=settings(width=3))
    result, lines, calls = compare(**configs)
    assert calls == [
        line
        for seed in (0, 1)
        for name in ('model1', 'model2')
        for line in (
            f"train {name} ['--seed', '{seed}']",
            'test best_epoch_2.pth',
        )
    ]
    assert (result['epochs'], result['seeds']) == (3, 2)
    assert [run['status'] for run in result['runs']] == ['finished'] * 4
    assert all(run['train_seconds'] > 0 for run in result['runs'])
    assert all(run['peak_bytes'] > 2**20 for run in result['runs'])
    file = tmp_path / 'runs' / 'comparison.json'
    assert json.loads(file.read_text()) == result
    row = table_of(result).splitlines()[-1].split(' | ')
    assert row[:3] == ['| model2', '2 of 2', '40.5 ± 0.7']
    assert row[-2:] == ['1.23 k / 1.2 M', '192 |']

    # the same again: nothing is run, and the numbers are the same
    again, lines, calls = compare(**configs)
    assert calls == []
    assert again == result
    assert all('finished already' in line for line in lines)
    # one seed more: that alone is run
    _, _, calls = compare(seeds=3, **configs)
    assert len(calls) == 4
    assert "'2'" in calls[0]
    # other settings are other runs
    assert len(compare(seeds=1, epochs=5, **configs)[2]) == 4


def test_a_run_that_fails_ends_no_other(compare, tmp_path):
    configs = dict(model1=settings(behaviour='fail'), model2=settings())
    result, lines, _ = compare(seeds=1, **configs)
    assert [run['status'] for run in result['runs']] == ['failed', 'finished']
    error = result['runs'][0]['error']
    assert 'train.py ended with code 1' in error
    assert 'no such backbone' in error
    assert any('model1, seed 0: FAILED' in line for line in lines)
    assert any('cost is not known: ImportError' in line for line in lines)
    first, second = table_of(result).splitlines()[2:]
    assert first.startswith('| model1 | 0 of 1 | – |')  # noqa: RUF001
    assert second.startswith('| model2 | 1 of 1 | 40.0 |')
    # it is tried again, the other is not
    assert len(compare(seeds=1, **configs)[2]) == 1


def compare_apart(config, folder, tools):
    comparison.measure_cost_apart = lambda config: None
    Comparison({'model1': Config(config)}, 1, folder, tools).run()


@pytest.mark.parametrize(
    'how', mostly_nightly([signal.SIGKILL, signal.SIGINT])
)
def test_an_interrupted_run_goes_on(how, compare, tools, tmp_path):
    config = settings(behaviour='wait')
    process = start(compare_apart, config, str(tmp_path / 'runs'), str(tools))
    folder = tmp_path / 'runs' / f'model1-{digest(Config(config))}' / 'seed0'
    try:
        _wait_for(folder / 'train' / 'last_checkpoint')
        training = int((folder / 'train' / 'pid').read_text())
        with pytest.raises(RuntimeError, match='Another comparison is at'):
            compare(seeds=1, model1=config)
        os.kill(process.pid, how)
        process.join(30)
        assert process.exitcode not in (0, None)
    finally:
        process.kill()
        process.join()
    if how == signal.SIGKILL:
        # the training is still at work in the folder
        with pytest.raises(RuntimeError, match='Another comparison is at'):
            compare(seeds=1, model1=config)
        os.kill(training, signal.SIGKILL)
    assert not (folder / 'run.json').exists()
    (tmp_path / 'runs' / 'calls').unlink(missing_ok=True)
    for _ in range(100):
        try:
            result, _, calls = compare(seeds=1, model1=config)
            break
        except RuntimeError:  # until the killed process is gone
            time.sleep(0.1)
    assert calls[0] == "train model1 ['--seed', '0', '--resume']"
    (run,) = result['runs']
    assert run['status'] == 'finished'
    # the time of the first part is not known
    assert run['train_seconds'] is None
    assert '| – | – |' in table_of(result)  # noqa: RUF001


def test_settings_are_those_of_the_start(compare, tmp_path):
    result, _, _ = compare(seeds=1, epochs=7, model1=settings(width=3))
    file = Path(result['runs'][0]['folder']) / 'config.py'
    assert Config.fromfile(file).to_dict() == settings(7, width=3)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(seeds=0), 'seeds=0'),
        (dict(epochs=0), 'epochs=0'),
        (dict(model2=settings(4)), 'model1: 3 epochs, model2: 4 epochs'),
        (
            dict(model2=dict(train_cfg=dict(max_iters=3))),
            'model1: 3 epochs, model2: 3 iterations',
        ),
        (
            dict(epochs=2, model2=dict(train_cfg=dict(max_iters=9))),
            'model2 trains for 9 iterations .* --epochs 2 does not apply',
        ),
        (dict(model2=dict(train_cfg=None)), 'model2 does not say how long'),
    ],
)
def test_what_cannot_be_compared_is_refused(compare, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(**{'model1': settings(), **arguments})


def test_budgets_may_be_iterations(compare):
    counting = dict(train_cfg=dict(by_epoch=False, max_iters=500))
    result, _, calls = compare(seeds=1, model1=counting, model2=counting)
    assert result['iterations'] == 500
    assert 'epochs' not in result
    assert len(calls) == 4


def test_the_lock_is_let_go(compare, tmp_path):
    compare(seeds=1, model1=settings())
    with (tmp_path / 'runs' / 'lock').open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_numbers_in_the_table():
    assert mean_and_spread([1.0, 2.0, 3.0]) == '2.0 ± 1.0'
    assert mean_and_spread([2.04]) == '2.0'
    assert mean_and_spread([1.0, float('nan')]) == 'not finite'
    numbers = [0, 192, 999.4, 999.6, 24576, 1.5e8, 2e15]
    assert [rounded(number) for number in numbers] == [
        *('0', '192', '999', '1 k', '24.6 k', '150 M', '2000 T')
    ]


@pytest.fixture(scope='module')
def story(tmp_path_factory):
    """A story set of 12 combinations a split."""
    folder = tmp_path_factory.mktemp('data') / 'story'
    write_story_dataset(folder, limit=12, workers=1)
    return folder


def story_options(story):
    options = {}
    for split in ('train', 'val', 'test'):
        inner = 'dataset.dataset' if split == 'train' else 'dataset'
        options[f'{split}_dataloader.{inner}.data_root'] = f'{story}/'
        options[f'{split}_dataloader.num_workers'] = 0
    options['train_dataloader.persistent_workers'] = False
    options['train_dataloader.batch_size'] = 12
    return options


@pytest.mark.parametrize(
    ('name', 'products'),
    [
        ('mean_pooling', 96),
        # logits and sum of 8 frames, and the linear layer
        ('x_pool', 2 * 8 * 96 + 96 * 96),
        pytest.param(
            't_mass',
            # that; cosines and radius; three sums over 20 trials
            2 * 8 * 96 + 96 * 96 + 2 * 8 * 96 + 3 * 20 * 96,
            marks=pytest.mark.nightly,
        ),
        # cosines of words and frames
        pytest.param('wti', 32 * 8 * 96, marks=pytest.mark.nightly),
    ],
)
def test_cost_of_a_pair(story, name, products):
    config = Config.fromfile(CONFIGS / f'{name}_story.py')
    config.merge_from_dict(story_options(story))
    cost = measure_cost(config)
    assert cost.flops_per_pair == 2 * products
    assert 0 < cost.head_parameters < cost.parameters


@pytest.mark.nightly
def test_cost_of_the_published_evaluation(story):
    config = Config.fromfile(CONFIGS / 't_mass_story.py')
    config.merge_from_dict(story_options(story))
    cost = measure_cost(config)
    config.model.head.evaluation = 'published'
    with pytest.warns(UserWarning, match='ground-truth caption'):
        assert measure_cost(config).flops_per_pair > cost.flops_per_pair


@pytest.mark.nightly
@pytest.mark.slow
def test_the_tool_on_a_small_story_set(story, tmp_path, environment):
    broken = tmp_path / 'broken.py'
    broken.write_text(
        f'_base_ = [{str(CONFIGS / "x_pool_story.py")!r}]\n'
        'model = dict(head=dict(embed_dim=5))\n'
    )
    options = [f'{key}={value}' for key, value in story_options(story).items()]
    command = [
        *(sys.executable, ROOT / 'tools/compare.py'),
        *(CONFIGS / 'mean_pooling_story.py', broken),
        *('--seeds', '1', '--epochs', '1', '--work-dir', tmp_path / 'runs'),
        *('--cfg-options', *options),
    ]

    def call():
        return subprocess.run(
            list(map(str, command)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    first = call()
    assert first.returncode == 1, first.stdout + first.stderr
    assert 'embed_dim=5' in first.stdout
    result = json.loads((tmp_path / 'runs/comparison.json').read_text())
    run, failed = result['runs']
    assert (run['status'], failed['status']) == ('finished', 'failed')
    assert 'best_t2v_R1' in run['checkpoint']
    assert run['peak_bytes'] > 2**28
    assert result['costs']['mean_pooling_story']['flops_per_pair'] == 192
    *_, row, last = first.stdout.splitlines()
    assert row.startswith('| mean_pooling_story | 1 of 1 | ')
    assert last.startswith('| broken | 0 of 1 | ')
    # mended: its runs alone are done
    del command[command.index(broken)]
    second = call()
    assert second.returncode == 0, second.stdout + second.stderr
    assert 'training in' not in second.stdout
    assert row in second.stdout


def _wait_for(file):
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(f'{file} did not come; pid {os.getpid()}')


def test_memory_is_of_the_tool_alone(tmp_path):
    """This process is much larger than an empty script."""
    script = tmp_path / 'small.py'
    script.write_text('import time\ntime.sleep(0.3)\n')
    seconds, peak = run_tool(script, [], tmp_path / 'log')
    assert seconds >= 0.3
    assert 2**20 < peak < 100 * 2**20


def test_numbers_of_a_training_outlive_a_failed_test(compare):
    configs = dict(model1=settings())
    result, _, _ = compare(seeds=1, **configs)
    (run,) = result['runs']
    record = Path(run['folder']) / 'run.json'
    earlier = json.loads(record.read_text())
    # as if the test had failed
    record.write_text(json.dumps(dict(earlier, status='failed')))
    (again,) = compare(seeds=1, **configs)[0]['runs']
    assert again['status'] == 'finished'
    for key in ('train_seconds', 'peak_bytes'):
        assert again[key] == earlier[key] is not None


def test_a_broken_metrics_file_ends_no_comparison(compare):
    configs = dict(model1=settings(behaviour='broken'), model2=settings())
    result, _, _ = compare(seeds=1, **configs)
    assert [run['status'] for run in result['runs']] == ['failed', 'finished']
    assert 'JSONDecodeError' in result['runs'][0]['error']
