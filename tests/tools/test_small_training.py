"""A training that would make no step ends with the numbers, not in silence."""

import pytest

from tests.some_cases import mostly_nightly

TOOL = 'train.py'


@pytest.fixture
def config(mini_config, tmp_path):
    def write(*lines):
        path = tmp_path / 'small.py'
        path.write_text(f'_base_ = {str(mini_config)!r}\n' + '\n'.join(lines))
        return path

    return write


SCHEDULED = (
    "param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, "
    'convert_to_iter_based=True)'
)
FLEXIBLE = (
    "runner_type = 'FlexibleRunner'\n"
    "strategy = dict(type='SingleDeviceStrategy')"
)
SMALL = 'train_dataloader = dict(batch_size=9, drop_last=True)'


@pytest.mark.parametrize(
    'lines', mostly_nightly([[], [SCHEDULED], [SCHEDULED, FLEXIBLE]])
)
def test_fewer_items_than_a_batch(call_tool, config, tmp_path, lines):
    """Before, it ended well, and an untrained model was called best."""
    path, folder = config(SMALL, *lines), tmp_path / 'work'
    with pytest.raises(ValueError, match=r'has 8 items, but a batch .* 9'):
        call_tool(TOOL, path, '--work-dir', folder)
    assert not list(folder.glob('*.pth'))


@pytest.mark.parametrize(
    'loop',
    [
        'train_cfg = dict(max_epochs=0)',
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', "
        'max_iters=0)',
    ],
)
def test_a_loop_of_no_length(call_tool, config, tmp_path, loop):
    folder = tmp_path / 'work'
    with pytest.raises(ValueError, match='must be at least 1, but got 0'):
        call_tool(TOOL, config(loop, SCHEDULED), '--work-dir', folder)
    assert not list(folder.glob('*.pth'))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(300)
def test_fewer_items_than_the_batches_of_two(
    start_tool, config, tmp_path, repository
):
    path = config('train_dataloader = dict(batch_size=5, drop_last=True)')
    script = repository / 'tools' / 'dist_train.sh'
    with pytest.raises(AssertionError, match='8 items, 4 for each of 2') as e:
        start_tool('bash', script, path, 2, '--work-dir', tmp_path / 'work')
    assert 'a process has 5' in str(e.value)
