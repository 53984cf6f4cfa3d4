"""Catch mistyped top-level keys, which MMEngine ignores without a word."""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from eaglenet_mm.config.knobs import KNOBS

#: Keys that only we or MMEngine's ``Config`` and launchers read.
_OTHER_KEYS = {'custom_imports', 'runner_type'}
_SIMILAR = 0.85


@cache
def runner_keys() -> frozenset[str]:
    """Collect the top-level keys that have a meaning.

    They are the arguments of MMEngine's two runners, and what these read of
    their config beside them, such as ``sync_bn``, which stands nowhere but in
    their code.
    """
    found = set(_OTHER_KEYS)
    for runner in (Runner, FlexibleRunner):
        found |= set(inspect.signature(runner.__init__).parameters)
        tree = ast.parse(textwrap.dedent(inspect.getsource(runner)))
        for node in ast.walk(tree):
            found |= _key_read_by(node)
    return frozenset(found - {'self', 'cfg'})


def _key_read_by(node: ast.AST) -> set[str]:
    """The key that ``cfg.get('key')`` or ``cfg['key']`` reads, if it does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_read = node.func.attr == 'get'
        holder, key = node.func.value, node.args[0] if node.args else None
    elif isinstance(node, ast.Subscript):
        is_read, holder, key = True, node.value, node.slice
    else:
        return set()
    of_config = ast.unparse(holder) in ('cfg', 'self.cfg')
    if is_read and of_config and isinstance(key, ast.Constant):
        return {str(key.value)}
    return set()


def variable_names(cfg: Config) -> set[str]:
    """Collect the top-level keys that only the config's own files read."""
    imported: set[str] = getattr(cfg, '_imported_names', set())
    return set(cfg) - runner_keys() - imported


def check_config_keys(cfg: Config) -> None:
    """Refuse a top-level key that looks like a mistyped one.

    A config may hold variables of any name, so only names very close to a key
    with a meaning, which is itself not set, are refused.
    """
    known = runner_keys()
    for key in variable_names(cfg) - set(KNOBS):
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
