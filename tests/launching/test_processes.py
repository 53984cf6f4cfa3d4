"""Process groups without an accelerator, from every launcher."""

import os
import socket
import subprocess

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.launching import processes


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for names in processes._NAMES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name in ('MASTER_ADDR', 'MASTER_PORT', 'SLURM_NODELIST'):
        monkeypatch.delenv(name, raising=False)
    # set, so that what the code under test sets is undone afterwards
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    yield
    processes.leave_processes()
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'):
        os.environ.pop(name, None)


@pytest.fixture
def free_port(monkeypatch):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        monkeypatch.setenv('MASTER_PORT', str(probe.getsockname()[1]))


@pytest.mark.parametrize(
    ('launcher', 'device'), [('none', 'cpu'), ('pytorch', 'cuda')]
)
def test_other_cases_are_left_alone(monkeypatch, launcher, device):
    monkeypatch.setattr(processes, 'get_device', lambda: device)
    cfg = Config(dict(launcher=launcher))
    processes.prepare_processes(cfg)
    assert 'model_wrapper_cfg' not in cfg
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_one_process_of_every_launcher(monkeypatch, free_port, launcher):
    for name, value in zip(
        processes._NAMES[launcher], ('0', '1', '0'), strict=True
    ):
        monkeypatch.setenv(name, value)
    cfg = Config(
        dict(
            launcher=launcher,
            find_unused_parameters=True,
            model_wrapper_cfg=dict(bucket_cap_mb=7),
            env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=30)),
        )
    )
    processes.prepare_processes(cfg)
    assert torch.distributed.get_backend() == 'gloo'
    assert torch.distributed.get_world_size() == 1
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True,
        bucket_cap_mb=7,
    )
    processes.prepare_processes(cfg)  # a running group is kept
    processes.leave_processes()
    assert not torch.distributed.is_initialized()
    processes.leave_processes()


@pytest.mark.parametrize(
    ('launcher', 'name'),
    [
        ('pytorch', 'WORLD_SIZE'),
        ('slurm', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_missing_variables_are_named(launcher, name):
    with pytest.raises(KeyError, match=f'{name}.* is not set'):
        processes.prepare_processes(Config(dict(launcher=launcher)))


def test_slurm_finds_the_first_host(monkeypatch):
    monkeypatch.setenv('SLURM_NODELIST', 'node[3-4]')

    def run(command, **kwargs):
        assert command == ['scontrol', 'show', 'hostnames', 'node[3-4]']
        return subprocess.CompletedProcess(command, 0, 'node3\nnode4\n')

    monkeypatch.setattr(processes.subprocess, 'run', run)
    assert processes._first_host('slurm') == 'node3'
    assert processes._first_host('mpi') == '127.0.0.1'
