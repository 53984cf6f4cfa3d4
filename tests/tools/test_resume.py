"""Resuming goes on exactly as it was, or says what is missing."""

import json
import shutil

import pytest
import torch

from eaglenet_mm.utils import load_checkpoint_file
from tests.some_cases import mostly_nightly

SCHEDULE = (
    "param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=0.5, "
    'by_epoch=True, convert_to_iter_based=True), '
    "dict(type='CosineAnnealingLR', begin=0.5, by_epoch=True, "
    'convert_to_iter_based=True)]\n'
)
FLEXIBLE = (
    "runner_type = 'FlexibleRunner'\n"
    "strategy = dict(type='SingleDeviceStrategy')\n"
)
EMA = "custom_hooks = [dict(type='EMAHook', momentum=0.3)]\n"
KINDS = {
    'plain': '',
    'schedule': SCHEDULE,
    'ema': SCHEDULE + EMA,
    'flexible': SCHEDULE + FLEXIBLE,
    'flexible-ema': SCHEDULE + FLEXIBLE + EMA,
}


@pytest.fixture
def config(mini_config, tmp_path):
    """Write a child of the smallest config, with a checkpoint an epoch."""

    def write(name, *lines):
        path = tmp_path / f'{name}.py'
        path.write_text(
            f'_base_ = {str(mini_config)!r}\n'
            'default_hooks = dict(checkpoint=dict(interval=1))\n'
            'train_cfg = dict(max_epochs=4)\n' + ''.join(lines)
        )
        return path

    return write


@pytest.fixture
def train(call_tool, tmp_path):
    def start(config, folder, *options):
        path = tmp_path / folder
        call_tool('train.py', config, '--work-dir', path, *options)
        return path

    return start


def rates(folder):
    """Read iteration -> learning rate of all runs in a work directory."""
    found = {}
    for file in sorted(folder.rglob('vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if 'lr' in row:
                found[row['iter']] = row['lr']
    return found


def weights(folder, epoch):
    return load_checkpoint_file(folder / f'epoch_{epoch}.pth')['state_dict']


def plain(value):
    """Make states comparable to the last bit."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize('kind', mostly_nightly(KINDS, kept=2))
def test_goes_on_as_without_a_break(train, config, tmp_path, kind):
    """To the last bit, on both Runners; MMEngine's flexible one skips one."""
    path = config(kind.replace('-', '_'), KINDS[kind])
    whole = train(path, 'whole')
    for epoch in (1, 2):
        saved = whole / f'epoch_{epoch}.pth'
        meta = load_checkpoint_file(saved)['meta']
        assert (meta['epoch'], meta['iter']) == (epoch, 4 * epoch)
        resumed = train(path, f'from_{epoch}', '--resume', saved)
        torch.testing.assert_close(
            weights(resumed, 4), weights(whole, 4), rtol=0, atol=0
        )
        expected = {k: v for k, v in rates(whole).items() if k > 4 * epoch}
        assert rates(resumed) == expected
        first, second = (
            load_checkpoint_file(folder / 'epoch_4.pth')
            for folder in (whole, resumed)
        )
        for key in first.keys() - {'meta', 'message_hub'}:
            assert plain(second[key]) == plain(first[key])


@pytest.mark.parametrize('kind', mostly_nightly(['schedule', 'flexible']))
def test_best_files_hold_no_training(train, config, kind):
    path = config(kind, KINDS[kind])
    folder = train(path, 'work')
    (best,) = folder.glob('best_*.pth')
    with pytest.raises(
        ValueError,
        match=r'best_.*lacks optimizer, param_schedulers.*load_from=.*best_',
    ):
        train(path, 'again', '--resume', best)
    started = train(path, 'started', '--cfg-options', f'load_from={best}')
    assert len(rates(started)) == 16


def save_without(source, target, *keys):
    content = load_checkpoint_file(source)
    for key in keys:
        *way, last = key.split('/')
        place = content
        for step in way:
            place = place[step]
        del place[last]
    torch.save(content, target)
    return target


@pytest.mark.parametrize(
    'lost',
    [
        'optimizer',
        'optimizer/state',
        'param_schedulers',
        'message_hub',
        'meta/iter',
        'ema_state_dict',
    ],
)
def test_each_missing_state_is_named(train, config, tmp_path, lost):
    path = config('ema', KINDS['ema'])
    folder = train(path, 'work', '--cfg-options', 'train_cfg.max_epochs=1')
    part = save_without(folder / 'epoch_1.pth', tmp_path / 'part.pth', lost)
    name = lost.split('/')[0]
    with pytest.raises(ValueError, match=rf'part\.pth.* lacks .*{name}'):
        train(path, 'again', '--resume', part)


def test_averages_need_their_hook(train, config, tmp_path):
    """Their weights are averages: without the hook, others go on."""
    averaged = config('ema', KINDS['ema'])
    folder = train(averaged, 'work')
    plain = config('schedule', SCHEDULE)
    with pytest.raises(ValueError, match='averages of an EMAHook'):
        train(plain, 'again', '--resume', folder / 'epoch_2.pth')
    content = load_checkpoint_file(folder / 'epoch_2.pth')
    content['ema_state_dict'].pop('steps')
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r"same keys \(\['steps'\]\)"):
        train(averaged, 'again', '--resume', tmp_path / 'part.pth')


@pytest.mark.parametrize('flexible', mostly_nightly([False, True]))
@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ('optimizer.lr=0.01', r'lr 0\.1, the config 0\.01'),
        ('optimizer.weight_decay=0.5', 'weight_decay 0, the config 0.5'),
        ('optimizer.type=SGD', r"has the settings .*'betas'.* where SGD"),
        ('optimizer.betas=(0.5,0.9)', r'betas \(0\.9, 0\.999\), the config'),
    ],
)
def test_another_optimizer_is_refused(train, config, change, match, flexible):
    """MMEngine keeps the old settings and notes the new ones as used."""
    path = config('some', SCHEDULE + FLEXIBLE * flexible)
    one = ('--cfg-options', 'train_cfg.max_epochs=1')
    folder = train(path, 'work', *one)
    with pytest.raises(ValueError, match=match) as info:
        train(
            *(path, 'again', '--resume', folder / 'epoch_1.pth'),
            *('--cfg-options', f'optim_wrapper.{change}'),
        )
    assert 'load_from=' in str(info.value)


def test_the_loss_scale_belongs_to_the_state(train, config, tmp_path):
    path = config('schedule', SCHEDULE)
    folder = train(path, 'work', '--cfg-options', 'train_cfg.max_epochs=1')
    content = load_checkpoint_file(folder / 'epoch_1.pth')
    content['optimizer']['loss_scaler'] = {'scale': 2.0}
    scaled = tmp_path / 'scaled.pth'
    torch.save(content, scaled)
    with pytest.raises(ValueError, match=r'has a loss_scaler.*OptimWrapper'):
        train(path, 'again', '--resume', scaled)


def test_another_schedule_is_refused(train, config):
    path = config('schedule', SCHEDULE)
    folder = train(path, 'work', '--cfg-options', 'train_cfg.max_epochs=1')
    other = config(
        'other', "param_scheduler = dict(type='ExponentialLR', gamma=0.5)\n"
    )
    with pytest.raises(ValueError, match=r"schedulers.*\['ExponentialLR'\]"):
        train(other, 'again', '--resume', folder / 'epoch_1.pth')


def told(folder, text):
    """Give the lines with a text of all logs in a work directory."""
    return [
        line
        for path in folder.rglob('*.log')
        for line in path.read_text().splitlines()
        if text in line
    ]


@pytest.mark.parametrize(
    'kind', mostly_nightly(['schedule', 'flexible', 'warmup'])
)
def test_more_epochs_and_a_stretched_schedule(train, config, kind):
    """Stretched, the rates are those of a run that was longer from its start;
    also where the old schedule had come to its end, and a rate of 0.
    """
    lines = {
        **KINDS,
        'warmup': "param_scheduler = dict(type='WarmupCosineLR', "
        'convert_to_iter_based=True)\n',
    }[kind]
    path = config(kind, lines)
    short = train(path, 'short', '--cfg-options', 'train_cfg.max_epochs=2')
    long = rates(train(path, 'long'))
    resume = ('--resume', short / 'epoch_2.pth', '--cfg-options')
    option = 'default_hooks.strict_resume.stretch_schedule={}'
    as_made = train(path, 'as_made', *resume, 'log_level=INFO')
    (line,) = told(as_made, 'schedule of')
    assert 'WARNING' in line
    assert 'max_epochs 2, now 4' in line
    assert option.format(True) in line
    assert len(rates(as_made)) == 8
    assert rates(as_made) != {k: v for k, v in long.items() if k > 8}
    hook = "default_hooks.strict_resume.type='StrictResumeHook'"
    folder = train(path, 'stretched', *resume, hook, option.format(True))
    assert not told(folder, 'differs from that of')
    assert len(told(folder, 'goes on at iteration 8')) == 1
    stretched = rates(folder)
    assert sorted(stretched) == list(range(9, 17))
    for step, rate in stretched.items():
        assert rate == pytest.approx(long[step], rel=1e-9)


@pytest.mark.parametrize('kind', mostly_nightly(['plain', 'flexible']))
def test_a_copy_resumes_and_removes_its_own_files(
    train, config, tmp_path, kind
):
    path = config(kind, FLEXIBLE if kind == 'flexible' else '')
    one = ('--cfg-options', 'train_cfg.max_epochs=1')
    first = train(path, 'first', *one)
    copy = tmp_path / 'copy'
    shutil.copytree(first, copy)
    # the original goes another way after the copy was made
    content = load_checkpoint_file(first / 'epoch_1.pth')
    content['state_dict']['linear.weight'] += 5
    torch.save(content, first / 'epoch_1.pth')
    before = sorted(p.name for p in first.glob('*.pth'))
    expected = train(path, 'whole')
    train(path, 'copy', '--resume')
    torch.testing.assert_close(
        weights(copy, 4), weights(expected, 4), rtol=0, atol=0
    )
    assert sorted(p.name for p in first.glob('*.pth')) == before
    assert len(list(copy.glob('best_*.pth'))) == 1
    hub = load_checkpoint_file(copy / 'epoch_4.pth')['message_hub']
    assert hub['runtime_info']['best_ckpt'] == str(next(copy.glob('best_*')))


def test_a_copy_without_its_best_file(train, config, tmp_path):
    path = config('plain')
    first = train(path, 'first', '--cfg-options', 'train_cfg.max_epochs=2')
    copy = tmp_path / 'copy'
    copy.mkdir()
    for name in ('epoch_2.pth', 'last_checkpoint'):
        shutil.copy(first / name, copy)
    train(path, 'copy', '--resume')
    assert len(list(first.glob('best_*.pth'))) == 1
    assert len(list(copy.glob('best_*.pth'))) == 1


def test_a_lost_checkpoint_is_named(train, config, tmp_path):
    folder = tmp_path / 'work'
    folder.mkdir()
    (folder / 'last_checkpoint').write_text('/nowhere/epoch_7.pth')
    (folder / 'epoch_3.pth').touch()
    with pytest.raises(FileNotFoundError, match=r'epoch_7.*epoch_3\.pth'):
        train(config('plain'), 'work', '--resume')


def test_another_best_starts_to_compare_anew(train, config, tmp_path):
    """8 of one metric says nothing of another."""
    path = config('plain')
    folder = train(path, 'work', '--cfg-options', 'train_cfg.max_epochs=1')
    name = 'epoch_1.pth'
    content = load_checkpoint_file(folder / name)
    content['message_hub']['runtime_info'].update(
        best_score=-1.0, best_ckpt=str(folder / 'best_other_epoch_1.pth')
    )
    torch.save(content, folder / name)
    train(path, 'again', '--resume', folder / name)
    assert len(list((tmp_path / 'again').glob('best_mini_error_*'))) == 1


ITERATIONS = (
    "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', "
    'max_iters=4)\n'
    'default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4))\n'
)


@pytest.mark.parametrize(
    ('lines', 'done', 'mend'),
    [
        ('train_cfg = dict(max_epochs=1)\n', '1 of 1 epochs', 'max_epochs=2'),
        ('train_cfg = dict(max_epochs=3)\n', '3 of 3 epochs', 'max_epochs=6'),
        (ITERATIONS, '4 of 4 iterations', 'max_iters=8'),
        (FLEXIBLE, '4 of 4 epochs', 'max_epochs=8'),
    ],
)
def test_a_finished_training_says_so(train, config, lines, done, mend):
    path = config('plain', lines)
    folder = train(path, 'work')
    before = {file: file.read_bytes() for file in folder.glob('*.pth')}
    assert not told(folder, 'Nothing is left to train')
    train(path, 'work', '--resume')
    assert {file: file.read_bytes() for file in before} == before
    (line,) = told(folder, 'Nothing is left to train')
    assert f'.pth has trained {done}. ' in line
    assert f'--cfg-options train_cfg.{mend} ' in line
    train(path, 'work', '--resume', '--cfg-options', f'train_cfg.{mend}')
    assert len(told(folder, 'Nothing is left to train')) == 1
