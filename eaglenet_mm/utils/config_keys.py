"""Catch mistyped top-level keys, which MMEngine ignores without a word."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

#: Keys that MMEngine or we read elsewhere than in the Runner's constructor.
_OTHER_KEYS = {
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
}
_SIMILAR = 0.85


def runner_keys() -> set[str]:
    """Collect the top-level keys that have a meaning.

    Returns:
        set[str]: Arguments of the Runner and the keys read beside them.
    """
    arguments = set(inspect.signature(Runner.__init__).parameters)
    return (arguments - {'self', 'cfg'}) | _OTHER_KEYS


def check_config_keys(cfg: Config) -> None:
    """Refuse a top-level key that looks like a mistyped one.

    A config may hold variables of any name, so only names very close to a key
    with a meaning, which is itself not set, are refused.

    Args:
        cfg (Config): A whole config.

    Raises:
        KeyError: If there is such a key.
    """
    known = runner_keys()
    for key in set(cfg) - known:
        near = _nearest(key, known - set(cfg), _SIMILAR)
        if near is not None:
            raise KeyError(
                f'{cfg.filename} sets {key!r}, which nothing reads; did you '
                f'mean {near!r}? (Give a variable of yours a name less '
                'alike.)'
            )


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse command-line overrides of settings that do not exist.

    Only the first part of the dotted name is checked; what lies below is
    checked by the class that gets it.

    Args:
        cfg (Config): The config that will be changed.
        options (Mapping[str, Any]): Dotted name to value, of
            ``--cfg-options``.

    Raises:
        KeyError: If the config has no such key and no tool reads it.
    """
    known = runner_keys() | set(cfg)
    for name in options:
        key = name.split('.')[0]
        if key in known:
            continue
        near = _nearest(key, known, 0.5)
        hint = f'did you mean {near + name[len(key) :]!r}?' if near else ''
        raise KeyError(
            f'--cfg-options sets {name!r}, but {cfg.filename} has no '
            f'{key!r}; {hint or "its keys are " + ", ".join(sorted(cfg))}'
        )


def _nearest(key: str, known: Iterable[str], cutoff: float) -> str | None:
    found = difflib.get_close_matches(key, sorted(known), 1, cutoff)
    return found[0] if found else None
