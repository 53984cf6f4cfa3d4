"""From command line to Runner: shared code of ``train.py`` and ``test.py``.

The tools only declare their options; decisions are made, and tested, here.
"""

import argparse
import glob
import os
import os.path as osp
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from eaglenet_mm.config.frame_counts import check_frame_counts
from eaglenet_mm.config.knobs import KNOBS
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.launching.processes import prepare_processes
from eaglenet_mm.launching.strict_loading import require_matching_weights
from eaglenet_mm.registry import SCOPE
from eaglenet_mm.utils.safe_checkpoint import (
    TRUST_VARIABLE,
    find_latest_checkpoint,
)
from eaglenet_mm.utils.type_name import type_name


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of tools that take a config and a checkpoint."""
    add = parser.add_argument
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, for example '
        'train_cfg.max_epochs=8; lists as key="[a,b]". '
        f'{", ".join(KNOBS)} are set wherever they apply',
    )
    add(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints as plain pickles, which can run code; only '
        'for files from a source you trust',
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    add = parser.add_argument
    add(
        '--work-dir',
        help='folder of logs, checkpoints and metrics; default: work_dir of '
        "the config, else work_dirs/ and the config's name",
    )
    add_config_arguments(parser)
    add(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes; default: none, a single one',
    )
    rank = 'set by the launcher; default: %(default)s'
    add('--local_rank', '--local-rank', type=int, default=0, help=rank)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the options of every tool."""
    if args.trust_checkpoint:
        os.environ[TRUST_VARIABLE] = '1'
    return open_config(args.config, args.cfg_options)


def read_optional_config(args: argparse.Namespace) -> Config | None:
    """Read the config of a tool that works without one."""
    if args.config is not None:
        return read_config(args)
    if args.cfg_options:
        raise ValueError(
            '--cfg-options change the config, but none is given. Add --config.'
        )
    if args.trust_checkpoint:
        os.environ[TRUST_VARIABLE] = '1'
    return None


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the options of training and testing."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(cfg.filename))[0]
        cfg.work_dir = osp.join('work_dirs', name)
    return cfg


def check_checkpoint(path: str) -> None:
    """Refuse a missing checkpoint before the slow set-up.

    Args:
        path (str): A file, or a URL, which is not checked.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if '://' in path or osp.isfile(osp.expanduser(path)):
        return
    folder = osp.dirname(path) or '.'
    there = sorted(glob.glob(osp.join(glob.escape(folder), '*.pth')))[:5]
    raise FileNotFoundError(
        f'A checkpoint was expected at {path}, but there is no such file. '
        f'Its folder holds: {", ".join(there) or "no *.pth file"}.'
    )


def merge_train_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the training options to the config, in place."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume == 'auto':
        start = cfg.get('load_from')
        # a job restarted before its first checkpoint still needs the initial
        # weights of the config
        cfg.resume = (
            not start or find_latest_checkpoint(cfg.work_dir) is not None
        )
        cfg.load_from = None if cfg.resume else start
    elif args.resume is not None:
        check_checkpoint(args.resume)
        cfg.resume, cfg.load_from = True, args.resume
    if args.amp:
        _enable_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise KeyError(
                '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size='
                f'...) in {cfg.filename}, which has none. Add the global '
                'batch size that the learning rate was chosen for.'
            )
        cfg.auto_scale_lr.enable = True
    chosen = {
        'seed': args.seed,
        'diff_rank_seed': args.diff_rank_seed or None,
        'deterministic': args.deterministic or None,
    }
    chosen = {key: value for key, value in chosen.items() if value is not None}
    if chosen:
        cfg.randomness = {**(cfg.get('randomness') or {}), **chosen}


def _enable_amp(cfg: Config) -> None:
    """Choose the mixed precision that the device supports."""
    from mmengine.device import get_device

    kind = type_name(cfg.optim_wrapper, 'OptimWrapper')
    mixed = ('AmpOptimWrapper', 'AutocastOptimWrapper')
    if kind in mixed:
        return
    if kind != 'OptimWrapper':
        raise ValueError(
            f'--amp can replace an OptimWrapper, but optim_wrapper.type of '
            f'{cfg.filename} is {kind!r}. Choose the precision there.'
        )
    if get_device() == 'cpu':
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
        cfg.optim_wrapper.dtype = 'bfloat16'
        if cfg.get('default_scope') != SCOPE:  # not found by its bare name
            cfg.optim_wrapper._scope_ = SCOPE
    else:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


#: Default hooks for which MMEngine accepts None.
_MMENGINE_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)


def build_runner(cfg: Config, strict: bool) -> Runner:
    """Start several processes if needed, and build the Runner."""
    from eaglenet_mm.engine.hooks import StartWeightsHook, StrictResumeHook

    check_frame_counts(cfg)
    prepare_processes(cfg)
    hooks = cfg.get('default_hooks') or {}
    for name in set(hooks) - set(_MMENGINE_HOOKS):
        if hooks[name] is None:
            del hooks[name]
    if (cfg.get('randomness') or {}).get('deterministic'):
        # otherwise torch refuses every cuBLAS product
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    if 'runner_type' in cfg:
        # FlexibleRunner.from_cfg overrides its default with None
        cfg.setdefault('env_cfg', dict(dist_cfg=dict(backend='nccl')))
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    require_matching_weights(runner, partial=not strict)
    _require_training_steps(runner)
    hooks = getattr(runner, 'hooks', None)
    for kind in (StartWeightsHook, StrictResumeHook):
        if hooks is not None and not any(isinstance(x, kind) for x in hooks):
            runner.register_hook(kind())
    return runner


def _require_training_steps(runner: Runner) -> None:
    """Let a Runner check the training loop as soon as it is built.

    MMEngine builds schedules before the first hook runs, and these would fail
    on an empty epoch with a less helpful message.
    """
    from eaglenet_mm.engine.hooks.contrastive_batch_hook import (
        check_training_steps,
    )

    build = getattr(runner, 'build_train_loop', None)
    if build is None:
        return

    def build_train_loop(loop: Any) -> Any:
        loop = build(loop)
        check_training_steps(loop.dataloader, loop)
        return loop

    runner.build_train_loop = build_train_loop
