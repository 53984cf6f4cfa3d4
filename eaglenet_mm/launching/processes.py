"""Distributed runs on machines without an accelerator.

Cause: MMEngine 0.10 selects a GPU whenever it starts distributed work, and
passes ``device_ids`` to ``DistributedDataParallel``, which refuses them on
CPU. End: an MMEngine that checks the device first. Here the process group and
the wrapper are set up before the Runner is built.
"""

import gc
import os
import subprocess
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device

_NAMES = {  # launcher variables for rank, world size and local rank
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}


def prepare_processes(cfg: Config) -> None:
    """Make a distributed config work on CPU; leave others unchanged."""
    if cfg.get('launcher', 'none') == 'none' or get_device() != 'cpu':
        return
    wrapper = dict(cfg.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    wrapper.setdefault('broadcast_buffers', False)  # MMEngine's own default
    wrapper.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    cfg.model_wrapper_cfg = wrapper
    if torch.distributed.is_initialized():
        return
    _translate_variables(cfg.launcher)
    options = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    seconds = options.get('timeout')
    torch.distributed.init_process_group(
        'gloo', timeout=timedelta(seconds=seconds) if seconds else None
    )


def leave_processes() -> None:
    """Wait for all processes and end the process group, if there is one.

    Drop the Runner before: a model wrapper that outlives its process group
    can abort the process.
    """
    if torch.distributed.is_initialized():
        gc.collect()  # a Runner and its hooks refer to each other
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _translate_variables(launcher: str) -> None:
    """Copy the launcher's variables to the names torch reads."""
    missing = [
        name
        for name in _NAMES[launcher]
        if name not in os.environ and name != 'SLURM_LOCALID'
    ]
    if missing:
        raise KeyError(
            f'--launcher {launcher} reads the environment variables '
            f'{", ".join(_NAMES[launcher])}, but {", ".join(missing)} '
            f'is not set. Start it with tools/dist_train.sh (pytorch) or '
            'tools/slurm_train.sh (slurm), or leave out --launcher.'
        )
    for name, source in zip(_NAMES['pytorch'], _NAMES[launcher], strict=True):
        os.environ[name] = os.environ.get(source, '0')
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(launcher)


def _first_host(launcher: str) -> str:
    """Find the machine of rank 0, which is this one without slurm."""
    nodes = os.environ.get('SLURM_NODELIST')
    if launcher != 'slurm' or nodes is None:
        return '127.0.0.1'
    command = ['scontrol', 'show', 'hostnames', nodes]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True
    )
    return result.stdout.split()[0]
