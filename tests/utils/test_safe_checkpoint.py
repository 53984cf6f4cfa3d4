"""Checkpoint files: what is read, what is refused, and by which words."""

import io
import os
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

import eaglenet_mm
from eaglenet_mm.utils import (
    TRUST_VARIABLE,
    UnsafeCheckpointError,
    load_checkpoint_file,
)
from eaglenet_mm.utils.safe_checkpoint import (
    checkpoints_are_trusted,
    load_checkpoint_for_runner,
    load_checkpoint_url,
)


class Executes:
    """An object whose pickle runs a shell command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(autouse=True)
def untrusted(monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)


@pytest.fixture
def malicious(tmp_path):
    """Save a checkpoint that makes the file ``executed`` when unpickled."""
    path = tmp_path / 'malicious.pth'
    command = f'touch {tmp_path / "executed"}'
    content = {'state_dict': {}, 'extra': Executes(command)}
    torch.save(content, path)
    return path


def checkpoint():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        'state_dict': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'meta': {'epoch': 3, 'best_score': np.float64(41.5)},
        'message_hub': {
            'log_scalars': OrderedDict(loss=HistoryBuffer([1.0], [1]))
        },
        'half': torch.ones(2, dtype=torch.bfloat16),
        'parameter': nn.Parameter(torch.ones(2)),
        'bits': torch.tensor([True, False]),
    }


@pytest.mark.parametrize('zip_form', [True, False])
def test_reads_both_file_forms(tmp_path, zip_form):
    expected, path = checkpoint(), tmp_path / 'a.pth'
    torch.save(expected, path, _use_new_zipfile_serialization=zip_form)
    result = load_checkpoint_file(path)
    assert list(result) == list(expected)
    for name, value in expected['state_dict'].items():
        torch.testing.assert_close(result['state_dict'][name], value)
    assert result['state_dict']._metadata == expected['state_dict']._metadata
    moments = result['optimizer']['state'][0]['exp_avg']
    torch.testing.assert_close(
        moments, expected['optimizer']['state'][0]['exp_avg']
    )
    assert result['meta']['best_score'] == 41.5
    assert result['message_hub']['log_scalars']['loss'].mean() == 1.0
    assert result['half'].dtype is torch.bfloat16
    assert isinstance(result['parameter'], nn.Parameter)
    assert result['bits'].tolist() == [True, False]


def test_reads_a_plain_state_dict_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / 'plain.pth')
    assert list(load_checkpoint_file('~/plain.pth')) == ['weight', 'bias']


@pytest.mark.parametrize('zip_form', [True, False])
def test_refuses_code_without_running_it(tmp_path, zip_form):
    path, marker = tmp_path / 'b.pth', tmp_path / 'executed'
    content = {'extra': Executes(f'touch {marker}')}
    torch.save(content, path, _use_new_zipfile_serialization=zip_form)
    with pytest.raises(UnsafeCheckpointError) as info:
        load_checkpoint_file(path)
    for words in (str(path), 'system', '--trust-checkpoint', TRUST_VARIABLE):
        assert words in str(info.value)
    assert info.value.name in ('posix.system', 'nt.system')
    assert not marker.exists()


def test_the_argument_overrides(malicious, tmp_path):
    load_checkpoint_file(malicious, trusted=True)
    assert (tmp_path / 'executed').exists()


def test_the_environment_variable_overrides(malicious, tmp_path, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    load_checkpoint_file(malicious)
    assert (tmp_path / 'executed').exists()


@pytest.mark.parametrize(
    ('value', 'expected'),
    [('1', True), ('TRUE', True), ('yes', True), ('0', False), ('', False)],
)
def test_values_of_the_environment_variable(monkeypatch, value, expected):
    monkeypatch.setenv(TRUST_VARIABLE, value)
    assert checkpoints_are_trusted() is expected


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        load_checkpoint_file(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize('zip_form', [True, False])
@pytest.mark.parametrize('kept', [0, 1, 300, -100])
def test_truncated_file(tmp_path, kept, zip_form):
    path = tmp_path / 'cut.pth'
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=zip_form)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r'cut.pth .* no complete PyTorch'):
        load_checkpoint_file(path)


def test_file_of_another_kind(tmp_path):
    path = tmp_path / 'text.pth'
    path.write_text('version https://example.org/large-file\n')
    with pytest.raises(ValueError, match='download it again'):
        load_checkpoint_file(path)


def test_refuses_tar_archives(tmp_path):
    path = tmp_path / 'old.pth'
    with tarfile.open(path, 'w') as archive:
        archive.add(__file__, 'pickle')
    with pytest.raises(UnsafeCheckpointError, match='tar archive'):
        load_checkpoint_file(path)


@pytest.mark.filterwarnings('ignore:.*torch.jit')
def test_refuses_torchscript(tmp_path):
    path = tmp_path / 'script.pt'
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), path)
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        load_checkpoint_file(path)


def test_mmengine_uses_this_reader(malicious, tmp_path):
    assert eaglenet_mm.__version__
    with pytest.raises(UnsafeCheckpointError, match='system'):
        CheckpointLoader.load_checkpoint(str(malicious), 'cpu')
    model = nn.Linear(2, 2)
    path = str(tmp_path / 'good.pth')
    torch.save({'state_dict': model.state_dict()}, path)
    other = nn.Linear(2, 2)
    load_checkpoint(other, path, strict=True)
    torch.testing.assert_close(other.weight, model.weight)


def test_leaves_out_the_config_that_mmengine_would_execute(
    tmp_path, monkeypatch
):
    path = str(tmp_path / 'a.pth')
    torch.save({'meta': {'config': 'import os', 'epoch': 1}}, path)
    assert load_checkpoint_for_runner(path)['meta'] == {'epoch': 1}
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    assert 'config' in load_checkpoint_for_runner(path)['meta']


def test_the_runner_reader_takes_any_content(tmp_path):
    path = str(tmp_path / 'list.pth')
    torch.save([1, {'meta': None}], path)
    assert load_checkpoint_for_runner(path) == [1, {'meta': None}]


def test_downloads_are_read_by_the_list_and_kept(malicious, tmp_path):
    cache = tmp_path / 'cache'
    with pytest.raises(UnsafeCheckpointError, match='system'):
        load_checkpoint_url(malicious.as_uri(), str(cache), progress=False)
    good = tmp_path / 'good.pth'
    torch.save({'a': 1}, good)
    for _ in range(2):  # the second time from the cache
        result = load_checkpoint_url(good.as_uri(), str(cache), progress=False)
        assert result == {'a': 1}
        good.unlink(missing_ok=True)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_no_message_advises_to_read_a_damaged_file_unsafely(tmp_path):
    whole, path = io.BytesIO(), tmp_path / 'damaged.pth'
    torch.save(
        {'a': torch.ones(3)}, whole, _use_new_zipfile_serialization=False
    )
    random = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        data = bytearray(whole.getvalue())
        data[random.integers(250)] = random.integers(256)
        path.write_bytes(data)
        try:
            load_checkpoint_file(path)
        except (ValueError, UnsafeCheckpointError) as err:
            messages.append(str(err))
    assert len(messages) > 50
    assert not [x for x in messages if 'weights_only' in x]
