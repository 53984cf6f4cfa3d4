"""Checks for mistyped top-level keys, which MMEngine silently ignores."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from eaglenet_mm.config.knobs import KNOBS

#: Other keys that MMEngine 0.10 reads besides the arguments of its runners.
_OTHER_KEYS = {
    *('activation_checkpointing', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'init_weights_for_test_or_val'),
    *('model_wrapper_cfg', 'runner_type', 'sync_bn'),
}
_SIMILAR = 0.85


@cache
def runner_keys() -> frozenset[str]:
    """Collect the top-level keys that MMEngine reads."""
    arguments = {
        name
        for runner in (Runner, FlexibleRunner)
        for name in inspect.signature(runner).parameters
    }
    return frozenset(arguments - {'cfg'} | _OTHER_KEYS)


def variable_names(cfg: Config) -> set[str]:
    """Collect the top-level keys that only the config files read."""
    imported: set[str] = getattr(cfg, '_imported_names', set())
    return set(cfg) - runner_keys() - imported


def check_config_keys(cfg: Config) -> None:
    """Refuse top-level keys that look mistyped.

    A config may define any variables, so a name is refused only if it is very
    close to a key of MMEngine that is not set.
    """
    known = runner_keys()
    for key in variable_names(cfg) - set(KNOBS):
        near = _nearest(key, known - set(cfg), _SIMILAR)
        if near is not None:
            raise KeyError(
                f'{cfg.filename} sets {key!r}, which nothing reads; did you '
                f'mean {near!r}? (If it is your own variable, choose a less '
                'similar name.)'
            )


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse command-line overrides of top-level keys that do not exist.

    The rest of a dotted name is checked by the class that receives it.
    """
    known = runner_keys() | set(KNOBS) | set(cfg)
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
