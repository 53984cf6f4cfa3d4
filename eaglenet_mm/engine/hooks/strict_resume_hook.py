"""Checks that a resumed checkpoint holds the whole training state."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from eaglenet_mm.engine.hooks.metric_rules import check_other_rules
from eaglenet_mm.engine.hooks.retrieval_checkpoint_hook import (
    RetrievalCheckpointHook,
)
from eaglenet_mm.engine.hooks.retrieval_early_stopping_hook import (
    RetrievalEarlyStoppingHook,
)
from eaglenet_mm.registry import HOOKS
from eaglenet_mm.utils.safe_checkpoint import find_latest_checkpoint

#: Keys of every training checkpoint.
_ALWAYS = ('meta', 'state_dict', 'message_hub')
#: Optimiser settings that a checkpoint would overrule. Other entries of a
#: parameter group may be state.
_SETTINGS = (
    *('lr', 'weight_decay', 'betas', 'momentum', 'eps', 'max_grad_norm'),
    *('nesterov', 'amsgrad', 'decoupled_weight_decay'),
)
#: State of a schedule that changes with every step.
_MOVING = {
    *('last_step', '_global_step', '_last_value', 'base_values', 'verbose'),
}


@HOOKS.register_module()
class StrictResumeHook(Hook):
    """Refuse to resume from a checkpoint without the whole training state.

    MMEngine loads what it finds and silently restarts the rest: with a
    ``best_*.pth``, the optimiser and the schedule, so that warm-up begins
    again in the middle of the training. Before anything is loaded, this hook
    compares the checkpoint with what the run would save: optimiser and its
    settings, loss scale, schedules, and what hooks store, such as the averages
    of ``EMAHook``. It covers ``Runner`` and ``FlexibleRunner``; weights are
    checked when they are loaded.

    The length of a schedule is saved with it. If the config has another, as
    with a larger ``max_epochs``, the saved schedule continues, with a warning.

    Args:
        stretch_schedule (bool): Use the schedule of the config instead, at the
            step of the checkpoint: learning rates are then those of a training
            that had the config's length from its start. Default: False.

    Example:
        >>> default_hooks = dict(strict_resume=dict(type='StrictResumeHook'))
    """

    priority = 'HIGHEST'  # before EMAHook swaps the weights

    def __init__(self, stretch_schedule: bool = False) -> None:
        self.stretch_schedule = stretch_schedule
        self._resumed = ''  # path

    def before_train(self, runner: Runner) -> None:
        """Refuse wrong rules, and warn if nothing is left to train.

        Raises:
            ValueError: If a hook or scheduler watches a metric in the wrong
                direction, or resumed moments do not fit the parameters.
        """
        if self._resumed:  # mismatching weights were refused earlier
            _check_shapes(self._resumed, runner.optim_wrapper)
        if runner.val_loop is not None:
            # here because every training of the tools has this hook
            check_other_rules(
                runner,
                settled=(RetrievalCheckpointHook, RetrievalEarlyStoppingHook),
            )
        loop = runner.train_loop
        if loop.iter and (
            loop.iter >= loop.max_iters or loop.epoch >= loop.max_epochs > 1
        ):
            unit, key, done, end = (
                ('iterations', 'max_iters', loop.iter, loop.max_iters)
                if isinstance(loop, IterBasedTrainLoop)
                else ('epochs', 'max_epochs', loop.epoch, loop.max_epochs)
            )
            print_log(
                f'Nothing is left to train: {self._resumed} has trained '
                f'{done} of {end} {unit}. To train longer, resume with a '
                'larger number: --cfg-options '
                f'train_cfg.{key}={2 * done} (and default_hooks.'
                'strict_resume.stretch_schedule=True for a schedule of that '
                'length). To train again, give another --work-dir without '
                '--resume.',
                logger='current',
                level=logging.WARNING,
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a resumed checkpoint with the run.

        With ``stretch_schedule``, replace its schedules and learning rates.

        Raises:
            ValueError: If something is missing or differs; names it.
        """
        _begin_averages(runner)
        # the same test as in EMAHook
        built = not isinstance(runner.optim_wrapper, dict | None)
        if not runner._resume or not built:
            return
        path = self._resumed = _resumed_path(runner)
        _check_presence(runner, checkpoint, path)
        for name, wrapper in _wrappers(runner.optim_wrapper):
            saved = checkpoint['optimizer']
            saved = saved[name] if name else saved
            every = getattr(wrapper, '_accumulative_counts', 1)
            stepped = checkpoint['meta']['iter'] >= every
            _check_optimizer(path, name, saved, wrapper, stepped)
        changed = _changed_schedules(runner, checkpoint, path)
        if self.stretch_schedule:
            _stretch(runner, checkpoint)
        elif changed:
            print_log(
                f'The learning-rate schedule of {path} differs from that of '
                f'the config: {"; ".join(changed)}. The saved one continues; '
                'past its end the rate stays where it ended. To stretch it '
                'to the length of the config, resume with --cfg-options '
                'default_hooks.strict_resume.stretch_schedule=True.',
                logger='current',
                level=logging.WARNING,
            )


def _refusal(path: str, why: str, remedy: str) -> ValueError:
    """Error of a checkpoint that cannot be resumed."""
    return ValueError(
        f'{path} cannot be resumed: {why}. {remedy}, or start a new training '
        'from its weights: leave --resume out and give --cfg-options '
        f'load_from={path}'
    )


def _begin_averages(runner: Any) -> None:
    """Let EMAHook create its averages before a checkpoint is loaded.

    FlexibleRunner of MMEngine 0.10 calls ``before_run`` only afterwards, which
    would overwrite the loaded averages.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and not hasattr(hook, 'ema_model'):
            hook.before_run(runner)
            hook.before_run = lambda runner: None


def _resumed_path(runner: Any) -> str:
    """Path of the resumed checkpoint, which hooks are not given."""
    if isinstance(runner._resume, str):
        return runner._resume
    return runner._load_from or str(find_latest_checkpoint(runner.work_dir))


def _wrappers(wrapper: Any) -> list[tuple[str, Any]]:
    """List optimiser wrappers by name; a single one has the name ``""``."""
    is_dict = isinstance(wrapper, OptimWrapperDict)
    return list(wrapper.items()) if is_dict else [('', wrapper)]


def _check_presence(runner: Any, checkpoint: dict, path: str) -> None:
    """Refuse a checkpoint without everything the run would save."""
    missing = [key for key in _ALWAYS if key not in checkpoint]
    position = checkpoint.get('meta', {})
    missing += [f'meta.{k}' for k in ('epoch', 'iter') if k not in position]
    names = {name for name, _ in _wrappers(runner.optim_wrapper)}
    wanted = {'state', 'param_groups'} if '' in names else names
    saved = checkpoint.get('optimizer')
    if not isinstance(saved, Mapping) or not wanted <= saved.keys():
        missing.append('optimizer')
    if runner.param_schedulers and not checkpoint.get('param_schedulers'):
        missing.append('param_schedulers')
    kept = _kept_by_hooks(runner)
    for hook, key, value in kept:
        found = checkpoint.get(key)
        if found is None:
            missing.append(f'{key} of {hook}')
        elif key == 'ema_state_dict' and found.keys() != value.keys():
            other = sorted(found.keys() ^ value.keys())
            missing.append(f'{key} with the same keys ({other[:3]})')
    if missing:
        raise _refusal(
            path,
            f'it lacks {", ".join(missing)}, which would start anew in the '
            'middle of the training. Checkpoints called best, published ones '
            'and those of save_optimizer=False hold only weights',
            'Resume from another file of the run (epoch_*.pth, iter_*.pth)',
        )
    if 'ema_state_dict' in checkpoint.keys() - {key for _, key, _ in kept}:
        raise _refusal(
            path,
            'its weights are the averages of an EMAHook, and those that were '
            'trained are in its ema_state_dict, which no hook of this config '
            'reads',
            'Add the EMAHook to custom_hooks',
        )


def _check_optimizer(
    path: str, name: str, saved: Mapping, wrapper: Any, stepped: bool
) -> None:
    """Compare one optimiser: type, groups, settings and loss scale."""
    # not from its state_dict, which sharded optimisers gather
    own = wrapper.optimizer.param_groups
    kind = type(wrapper.optimizer).__name__
    groups = saved['param_groups']
    differences = []
    if ('loss_scaler' in saved) != hasattr(wrapper, 'loss_scaler'):
        there = 'has a' if 'loss_scaler' in saved else 'lacks the'
        differences.append(
            f'it {there} loss_scaler, and the config has '
            f'{type(wrapper).__name__}'
        )
    remembers = any('betas' in g or g.get('momentum') for g in groups)
    if stepped and remembers and not saved['state']:
        differences.append(f'its {kind} has lost the moments of all steps')
    if len(groups) != len(own):
        differences.append(
            f'it has {len(groups)} groups of parameters, the config {len(own)}'
        )
    else:
        differences += _different_settings(groups, own, kind)
    if differences:
        raise _refusal(
            path,
            f'{f"optimizer {name!r}" if name else "the optimiser"} is another '
            f'one; {"; ".join(differences)}',
            'Resume with the settings that the run was started with',
        )


def _check_shapes(path: str, wrapper: Any) -> None:
    """Refuse moments whose parameters have grown, as resized positions do."""
    for _, inner in _wrappers(wrapper):
        for parameter, state in inner.optimizer.state.items():
            # as torch's optimisers name them; others may factor or pack them
            moment = state.get('exp_avg', state.get('momentum_buffer'))
            if moment is not None and moment.shape != parameter.shape:
                raise _refusal(
                    path,
                    'the moments of its optimiser have the shape '
                    f'{tuple(moment.shape)} where the model has '
                    f'{tuple(parameter.shape)}, as after resizing positions',
                    'Resume with the model that the run was started with',
                )


def _different_settings(
    saved: list[dict], own: list[dict], kind: str
) -> list[str]:
    """List settings that the checkpoint would silently overrule."""
    found: dict[str, str] = {}
    for theirs, ours in zip(saved, own, strict=True):
        only_there, only_here = (
            sorted(key for key in keys if not key.startswith('initial_'))
            for keys in (theirs.keys() - ours, ours.keys() - theirs)
        )
        # a newer version of the same optimiser adds settings, and drops none
        if only_there and only_here:
            return [
                f'it has the settings {only_there}, where {kind} of the '
                f'config has {only_here}'
            ]
        for name in _SETTINGS:
            # scheduled settings are compared by their initial value
            begin = f'initial_{name}'
            scheduled = (begin in theirs) + (begin in ours)
            key = begin if scheduled == 2 else name
            if scheduled == 1 or key not in theirs or key not in ours:
                continue
            if name == 'betas' and 'initial_momentum' in theirs:
                continue  # changed by a momentum schedule
            before, now = (
                list(value) if isinstance(value, tuple | list) else value
                for value in (theirs[key], ours[key])
            )
            if before != now:
                found.setdefault(
                    name,
                    f'it has {name} {theirs[key]}, the config {ours[key]}',
                )
    return list(found.values())


def _kept_by_hooks(runner: Any) -> list[tuple[str, str, Any]]:
    """List what hooks add to a checkpoint: hook name, key, value."""
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    draft: dict[str, Any] = {
        'meta': {},
        'state_dict': model.state_dict(),
        'message_hub': {},
        'optimizer': {},
        'param_schedulers': [],
    }
    added = []
    for hook in runner.hooks:
        before = set(draft)
        if hasattr(hook, 'before_save_checkpoint'):
            hook.before_save_checkpoint(runner, checkpoint=draft)
        added += [
            (type(hook).__name__, key, draft[key])
            for key in draft.keys() - before
        ]
    return added


def _named_schedules(
    schedules: Any, prefix: str = ''
) -> list[tuple[str, Any]]:
    """Flatten the schedules of one or several optimisers."""
    if isinstance(schedules, Mapping):
        return [
            item
            for name, inner in schedules.items()
            for item in _named_schedules(inner, f'{prefix}{name}.')
        ]
    return [(f'{prefix}{i}', one) for i, one in enumerate(schedules or [])]


def _changed_schedules(runner: Any, checkpoint: dict, path: str) -> list[str]:
    """List changed settings of schedules; refuse other schedules."""
    own = _named_schedules(runner.param_schedulers)
    saved = dict(_named_schedules(checkpoint.get('param_schedulers')))
    changed = []
    for name, schedule in own:
        state = schedule.state_dict()
        if state.keys() != saved.get(name, {}).keys():
            saved = {}
            break
        kind = type(schedule).__name__
        changed += [
            f'{kind} {key} {saved[name][key]}, now {value}'
            for key, value in state.items()
            if key not in _MOVING and saved[name][key] != value
        ]
    if len(saved) != len(own):
        kinds = [type(schedule).__name__ for _, schedule in own]
        raise _refusal(
            path,
            f'its param_schedulers differ from those of the config, {kinds}',
            'Resume with the schedule that the run was started with',
        )
    info = checkpoint['message_hub'].get('runtime_info', {})
    for key in ('max_epochs', 'max_iters') if own else ():
        before, now = info.get(key), getattr(runner, key)
        if before is not None and before != now:
            changed.append(f'{key} {before}, now {now}')
    return changed


def _stretch(runner: Any, checkpoint: dict) -> None:
    """Advance the config's schedules to the step of the checkpoint."""
    schedules = runner.param_schedulers
    if not schedules:
        return
    if isinstance(schedules, Mapping) or any(
        hasattr(schedule, 'monitor') for schedule in schedules
    ):
        raise ValueError(
            'stretch_schedule=True needs schedules that depend on the step '
            'alone, of one optimiser, but got '
            f'{[type(one).__name__ for _, one in _named_schedules(schedules)]}'
            '. Leave it out.'
        )
    epochs, steps = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    with warnings.catch_warnings():
        # rightly: no optimiser has stepped yet in this process
        warnings.filterwarnings('ignore', message='Detected call of')
        done = 0
        for epoch in range(epochs + 1):
            until = steps * (epoch + 1) // epochs if epoch < epochs else steps
            moves = [False] * (until - done) + [True] * (epoch < epochs)
            for by_epoch in moves:
                for schedule in schedules:
                    if schedule.by_epoch is by_epoch:
                        schedule.step()
            done = until
    saved = checkpoint['optimizer']
    groups = [*saved['param_groups']]
    if saved.get('base_param_settings') is not None:
        groups.append(saved['base_param_settings'])
    for group, own in zip(
        groups, runner.optim_wrapper.param_groups, strict=True
    ):
        for name in {schedule.param_name for schedule in schedules}:
            group[name] = own[name]
    checkpoint['param_schedulers'] = [
        copy.deepcopy(schedule.state_dict()) for schedule in schedules
    ]
    rates = sorted({group['lr'] for group in saved['param_groups']})
    print_log(
        f'The schedule of the config goes on at iteration {steps}; learning '
        f'rates {", ".join(f"{rate:.3g}" for rate in rates)}.',
        logger='current',
    )
