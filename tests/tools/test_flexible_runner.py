"""MMEngine's FlexibleRunner through the tools: as its Runner."""

import json

import pytest
import torch

from eaglenet_mm.utils import load_checkpoint_file
from tests.some_cases import mostly_nightly

FLEXIBLE = (
    "runner_type = 'FlexibleRunner'\n"
    "strategy = dict(type='SingleDeviceStrategy')\n"
)


@pytest.fixture
def configs(mini_config, tmp_path):
    flexible = tmp_path / 'flexible.py'
    flexible.write_text(f'_base_ = {str(mini_config)!r}\n{FLEXIBLE}')
    return mini_config, flexible


def metrics(folder):
    return json.loads((folder / 'metrics.json').read_text())['metrics']


def test_trains_tests_and_starts_from_weights_as_runner(
    call_tool, configs, tmp_path
):
    found = []
    for config in configs:
        folder = tmp_path / config.stem
        call_tool('train.py', config, '--work-dir', folder / 'first')
        (best,) = (folder / 'first').glob('best_*.pth')
        call_tool(
            *('train.py', config, '--work-dir', folder / 'second'),
            *('--cfg-options', f'load_from={best}'),
        )
        last = folder / 'second' / 'epoch_2.pth'
        call_tool('test.py', config, last, '--work-dir', folder / 'test')
        weight = load_checkpoint_file(last)['state_dict']['linear.weight']
        found.append((weight, metrics(folder / 'test')['mini/error']))
    (weight, error), (their_weight, their_error) = found
    torch.testing.assert_close(their_weight, weight, rtol=0, atol=0)
    assert their_error == error > 0


@pytest.mark.parametrize('tool', mostly_nightly(['train.py', 'test.py']))
def test_weights_must_fit(call_tool, configs, tmp_path, tool):
    _, config = configs
    folder = tmp_path / 'first'
    call_tool('train.py', config, '--work-dir', folder)
    path = folder / 'epoch_2.pth'
    arguments = [path] if tool == 'test.py' else ['--resume', path]
    with pytest.raises(ValueError, match=r'(?s)epoch_2\.pth .*linear\.weight'):
        call_tool(
            *(tool, config, *arguments, '--work-dir', tmp_path / 'other'),
            *('--cfg-options', 'model.width=3'),
        )
