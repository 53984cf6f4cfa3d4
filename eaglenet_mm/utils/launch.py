"""From command line to Runner: what ``tools/train.py`` and ``test.py`` share.

The tools only state their options; everything that can go wrong with them is
decided, and tested, here.
"""

import argparse
import glob
import os
import os.path as osp
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from eaglenet_mm.utils.config_keys import check_config_keys, check_options
from eaglenet_mm.utils.cpu_processes import prepare_processes
from eaglenet_mm.utils.safe_checkpoint import TRUST_VARIABLE
from eaglenet_mm.utils.strict_loading import require_matching_weights


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that takes a config and a checkpoint.

    Args:
        parser (ArgumentParser): Gets ``--cfg-options`` and
            ``--trust-checkpoint``.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, for example '
        'train_dataloader.batch_size=8; lists as key="[a,b]"',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints as plain pickles, which can run code; only '
        'for files whose maker you trust',
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share.

    Args:
        parser (ArgumentParser): Gets ``--work-dir``, ``--launcher``,
            ``--local_rank`` and those of :func:`add_config_arguments`.
    """
    parser.add_argument(
        '--work-dir',
        help='folder of logs, checkpoints and metrics; default: work_dir of '
        "the config, else work_dirs/ and the config's name",
    )
    add_config_arguments(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes; default: none, a single one',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the options of every tool.

    Args:
        args (Namespace): Of :func:`add_config_arguments`, and ``config``.

    Returns:
        Config: As it is to be used.

    Raises:
        FileNotFoundError: If there is no such config.
        KeyError: If a top-level key is not known but resembles one that is,
            or if ``--cfg-options`` sets one that does not exist.
    """
    if not osp.isfile(args.config):
        raise FileNotFoundError(
            f'A config file was expected at {args.config}, but there is '
            'none. Run from the repository root, or give a full path.'
        )
    if args.trust_checkpoint:
        os.environ[TRUST_VARIABLE] = '1'
    cfg = Config.fromfile(args.config)
    check_config_keys(cfg)
    if args.cfg_options:
        check_options(cfg, args.cfg_options)
        cfg.merge_from_dict(args.cfg_options)
    return cfg


def read_optional_config(args: argparse.Namespace) -> Config | None:
    """Read the config of a tool that can do without one.

    Args:
        args (Namespace): Of :func:`add_config_arguments`, and ``config``,
            which may be None.

    Returns:
        Config: As it is to be used, or None.

    Raises:
        FileNotFoundError, KeyError: See :func:`read_config`.
        ValueError: If there are ``--cfg-options``, but no config.
    """
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
    """Read the config and apply the options of training and testing.

    Args:
        args (Namespace): Of :func:`add_launch_arguments`, and ``config``.

    Returns:
        Config: With ``launcher`` and ``work_dir`` set.

    Raises:
        FileNotFoundError, KeyError: See :func:`read_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('work_dirs', name)
    return cfg


def skip_pretrained(cfg: Config) -> None:
    """Let no part of the model read weights to start from.

    For a model whose weights all come from a checkpoint: those to start from
    may not be at hand, and would be overwritten.

    Args:
        cfg (Config): Its ``model`` loses, at every depth, ``pretrained``,
            ``checkpoint`` and ``checkpoint_path``, initialisation of type
            ``Pretrained``, and other wishes for pretrained weights. Model
            folders, of open_clip and of Hugging Face, still tell what to
            build.
    """
    _skip_weights(cfg.model)


#: Settings that name a file of weights, or ask for one.
_START_WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path')
#: Models of open_clip that come with weights by themselves.
_MODEL_FOLDERS = ('local-dir:', 'hf-hub:')


def _skip_weights(settings: Any) -> None:
    """Remove what names weights from settings, in place."""
    if isinstance(settings, list | tuple):
        for part in settings:
            _skip_weights(part)
    if not isinstance(settings, dict):
        return
    for name in _START_WEIGHTS:
        if name == 'pretrained' or isinstance(settings.get(name), str):
            settings.pop(name, None)
    for name, value in settings.items():
        # timm_model_pretrained of open_clip, clip_pretrained of mmaction
        if name.endswith('_pretrained') and value:
            settings[name] = False
        elif name == 'init_cfg':
            settings[name] = _without_weights(value)
    kind = _name_of(settings.get('type'))
    names = (settings.get('arch'), kind.partition('.')[2])
    if any(str(name).startswith(_MODEL_FOLDERS) for name in names) or (
        kind.endswith('HuggingFaceTextEncoder')
        and isinstance(settings.get('model'), str)
    ):
        settings['pretrained'] = False
    for value in settings.values():
        _skip_weights(value)


def _without_weights(init: Any) -> Any:
    """Leave out initialisation from a file."""
    if isinstance(init, list | tuple):
        kept = [part for part in init if _without_weights(part) is not None]
        return kept or None
    if not isinstance(init, dict):
        return init
    name = _name_of(init.get('type')).rpartition('.')[2]
    return None if name in ('Pretrained', 'PretrainedInit') else init


def _name_of(kind: Any) -> str:
    """Name of a type that may be a class, as in configs in pure Python."""
    return kind if isinstance(kind, str) else getattr(kind, '__name__', '')


def check_checkpoint(path: str) -> None:
    """Refuse a missing checkpoint before minutes of set-up.

    Args:
        path (str): A file, or a URL, which is not looked up.

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
    """Apply the options of training to the config, in place.

    Args:
        cfg (Config): Of :func:`load_config`.
        args (Namespace): ``no_validate``, ``resume``, ``amp``,
            ``auto_scale_lr``, ``seed``, ``diff_rank_seed`` and
            ``deterministic``.

    Raises:
        FileNotFoundError: If the checkpoint to resume from does not exist.
        KeyError: If ``--auto-scale-lr`` is given and the config does not
            state the batch size it was made for.
        ValueError: If ``--amp`` meets an optimizer wrapper it cannot replace.
    """
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if cfg.load_from is not None:
            check_checkpoint(cfg.load_from)
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
    """Take the mixed precision that the device at hand supports."""
    from mmengine.device import get_device

    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
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
    else:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def build_runner(cfg: Config, strict: bool) -> Runner:
    """Start the processes if there are several, and build the Runner.

    Args:
        cfg (Config): Of :func:`load_config`.
        strict (bool): Whether a checkpoint must fit the model exactly. Off,
            what it lacks starts from random numbers, as fine-tuning from a
            part of a model wants; its shapes must fit all the same.

    Returns:
        Runner: Ready to train or test.
    """
    prepare_processes(cfg)
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    require_matching_weights(runner, partial=not strict)
    return runner
