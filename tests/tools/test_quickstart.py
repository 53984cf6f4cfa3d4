"""What the quickstart does in which order, with a Python that only notes it.

The real thing takes minutes; here the stand-in writes down its arguments and,
for a training, makes the best checkpoint.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

STAND_IN = r"""#!/bin/bash
echo "$*" >>"$CALLS"
case $1 in
    tools/train.py)
        case $2 in
            *eaglenet_story.py) sleep "${SECONDS_OF_EAGLENET:-0}" ;;
        esac
        if [ -e "$FAIL" ]; then echo "the reason of it" >&2; exit 1; fi
        touch "$4/best_t2v_R1_epoch_3.pth"
        ;;
    tools/quickstart_report.py) echo "the table" ;;
    tools/*) echo "chatter of $1" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    for folder in (
        'tools',
        '.venv/bin',
        'configs',
        'eaglenet_mm',
        'data/story',
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name in ('quickstart.sh', 'environment.sh'):
        text = (TOOLS / name).read_text()
        (tmp_path / 'tools' / name).write_text(text)
    for name in ('setup.py', 'pyproject.toml', 'constraints.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'configs' / 'a.py').write_text('first')
    (tmp_path / 'tools' / 'train.py').touch()
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return tmp_path


@pytest.fixture
def quickstart(checkout):
    """Run the script and give the tools it called, in order."""

    def run(*options, expected=0, **variables):
        calls = checkout / 'calls'
        calls.unlink(missing_ok=True)
        result = subprocess.run(
            ['bash', checkout / 'tools' / 'quickstart.sh', *options],
            env={
                'PATH': os.environ['PATH'],
                'CALLS': str(calls),
                'FAIL': str(checkout / 'fail'),
                **variables,
            },
            cwd='/',
            capture_output=True,
            text=True,
        )
        assert result.returncode == expected, result.stdout + result.stderr
        run.output = result.stdout + result.stderr
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith('-m pip')]

    return run


def trainings(calls):
    return [call for call in calls if 'tools/train.py' in call]


def test_the_steps(quickstart, checkout):
    calls = quickstart()
    best = 'work_dirs/quickstart/{}_story/best_t2v_R1_epoch_3.pth'.format
    expected = [
        'tools/dataset_converters/story.py --out data/story --seed 0',
        'tools/cache_frames.py configs/eaglenet_story.py',
        'tools/train.py configs/eaglenet_story.py',
        'tools/train.py configs/mean_pooling_story.py',
        'tools/train.py configs/x_pool_story.py',
        f'tools/test.py configs/eaglenet_story.py {best("eaglenet")}',
        f'tools/test.py configs/mean_pooling_story.py {best("mean_pooling")}',
        f'tools/test.py configs/x_pool_story.py {best("x_pool")}',
        'tools/test.py configs/eaglenet_story.py none',
        'tools/index.py data/story/videos/test --out work_dirs/quickstart/',
        'tools/quickstart_report.py data/story/test.json work_dirs/quickstart '
        'work_dirs/quickstart/test-videos-',
    ]
    assert len(calls) == len(expected)
    # EagleNet is trained beside the other two, in any order
    for call, start in zip(
        sorted(calls[2:5]), sorted(expected[2:5]), strict=True
    ):
        assert call.startswith(start)
    others = zip(
        calls[:2] + calls[5:], expected[:2] + expected[5:], strict=True
    )
    for call, start in others:
        assert call.startswith(start)
    assert 'the table' in quickstart.output
    # the rest is in the log alone
    assert 'chatter' not in quickstart.output
    log = (checkout / 'work_dirs/quickstart/log.txt').read_text()
    assert 'chatter of tools/test.py' in log
    assert 'the table' in log


def test_the_seed_reaches_videos_and_trainings(quickstart):
    calls = quickstart(SEED='7')
    assert 'story.py --out data/story --seed 7' in calls[0]
    of_seed = [call for call in calls if 'randomness.seed=7' in call]
    assert len(of_seed) == 7  # three trainings, four tests


@pytest.mark.nightly
def test_a_second_call_reuses_the_trainings(quickstart):
    first = quickstart()
    second = quickstart()
    assert trainings(second) == []
    assert 'is trained already' in quickstart.output
    assert len(second) == len(first) - 3
    assert len(trainings(quickstart(SEED='1'))) == 3
    assert len(trainings(quickstart('--fresh'))) == 3


@pytest.mark.nightly
def test_a_changed_config_trains_anew(quickstart, checkout):
    quickstart()
    stale = checkout / 'work_dirs/quickstart/eaglenet_story/best_old.pth'
    stale.touch()
    (checkout / 'configs' / 'a.py').write_text('second')
    calls = trainings(quickstart())
    assert len(calls) == 3
    assert not any('--resume' in call for call in calls)
    assert not stale.exists()


def test_a_failed_training_is_told_and_goes_on_later(quickstart, checkout):
    (checkout / 'fail').touch()
    calls = quickstart(expected=1)
    assert all(call.startswith('tools/train.py') for call in calls[2:])
    assert 'the reason of it' in quickstart.output
    assert 'mean_pooling_story' in quickstart.output
    (checkout / 'fail').unlink()
    again = trainings(quickstart())
    resumed = [call for call in again if '--resume' in call]
    # EagleNet may have been ended before it began
    assert any('mean_pooling_story' in call for call in resumed)


def test_a_failure_ends_what_is_trained_beside_it(quickstart, checkout):
    (checkout / 'fail').touch()
    start = time.monotonic()  # pipes are open as long as anybody writes
    quickstart(expected=1, SECONDS_OF_EAGLENET='60')
    assert time.monotonic() - start < 30


def test_unknown_options_show_the_usage(quickstart):
    assert quickstart('--help', expected=2) == []
    assert 'bash tools/quickstart.sh [--fresh]' in quickstart.output
