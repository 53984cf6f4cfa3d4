"""What the quickstart does in which order, with a Python that only notes it.

The real thing takes minutes; here the stand-in writes down its arguments and,
for a training, makes the best checkpoint.
"""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

STAND_IN = r"""#!/bin/bash
echo "$*" >>"$CALLS"
case $1 in
    tools/train.py)
        [ ! -e "$INTERRUPT" ] || exit 1
        touch "$4/best_t2v_R1_epoch_3.pth"
        ;;
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

    def run(*options, expected=0):
        calls = checkout / 'calls'
        calls.unlink(missing_ok=True)
        result = subprocess.run(
            ['bash', checkout / 'tools' / 'quickstart.sh', *options],
            env={
                'PATH': os.environ['PATH'],
                'CALLS': str(calls),
                'INTERRUPT': str(checkout / 'interrupt'),
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


def test_the_steps(quickstart):
    calls = quickstart()
    best = 'work_dirs/quickstart/{}_story/best_t2v_R1_epoch_3.pth'.format
    expected = [
        'tools/dataset_converters/story.py --out data/story',
        'tools/train.py configs/eaglenet_story.py',
        f'tools/test.py configs/eaglenet_story.py {best("eaglenet")}',
        'tools/index.py data/story/videos --config configs/eaglenet_story.py '
        f'--checkpoint {best("eaglenet")} --out work_dirs/quickstart/videos-',
        'tools/search.py work_dirs/quickstart/videos-',
        'tools/train.py configs/mean_pooling_story.py',
        f'tools/test.py configs/mean_pooling_story.py {best("mean_pooling")}',
        'tools/test.py configs/eaglenet_story.py none',
        'tools/quickstart_report.py data/story/test.json work_dirs/quickstart',
    ]
    assert len(calls) == len(expected)
    for call, start in zip(calls, expected, strict=True):
        assert call.startswith(start)
    for number in range(1, 8):
        assert f'== {number}/7' in quickstart.output


@pytest.mark.nightly
def test_a_second_call_reuses_the_trainings(quickstart):
    first = quickstart()
    second = quickstart()
    assert trainings(second) == []
    assert 'is trained already' in quickstart.output
    assert len(second) == len(first) - 2
    assert len(trainings(quickstart('--fresh'))) == 2


@pytest.mark.nightly
def test_a_changed_config_trains_anew(quickstart, checkout):
    quickstart()
    stale = checkout / 'work_dirs/quickstart/eaglenet_story/best_old.pth'
    stale.touch()
    (checkout / 'configs' / 'a.py').write_text('second')
    calls = trainings(quickstart())
    assert len(calls) == 2
    assert not any('--resume' in call for call in calls)
    assert not stale.exists()


@pytest.mark.nightly
def test_an_interrupted_training_goes_on(quickstart, checkout):
    (checkout / 'interrupt').touch()
    calls = quickstart(expected=1)
    assert calls[-1].startswith('tools/train.py')  # nothing after it
    (checkout / 'interrupt').unlink()
    first, second = trainings(quickstart())
    assert first.endswith('--resume')
    assert '--resume' not in second


def test_unknown_options_show_the_usage(quickstart):
    assert quickstart('--help', expected=2) == []
    assert 'bash tools/quickstart.sh [--fresh]' in quickstart.output
