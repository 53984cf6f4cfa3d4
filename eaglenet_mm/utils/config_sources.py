"""The files a config is made of: which variables each sets and reads.

A variable of a config, ``num_frames = 12``, is put into the settings while
the files are read. Afterwards it is a copy that nothing reads; only the files
themselves tell where it went.
"""

from __future__ import annotations

import ast
import os.path as osp
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.utils import get_installed_path

_BASE = '_base_'


@dataclass
class ConfigSource:
    """One file of a config, with those it inherits from.

    Attributes:
        path (str): The file.
        sets (set[str]): Top-level variables it sets.
        reads (set[str]): Variables it reads, its own or of its bases.
        writes (set[str]): Dotted names of the settings whose values stand in
            it as such, not read from a base.
        bases (list[ConfigSource]): What it inherits from.
    """

    path: str
    sets: set[str]
    reads: set[str]
    writes: set[str] = field(default_factory=set)
    bases: list[ConfigSource] = field(default_factory=list)

    @property
    def is_written_out(self) -> bool:
        """Whether no variable is read, as in a config that was dumped."""
        return not self.sets & self.reads

    def line_to(self, name: str) -> list[ConfigSource]:
        """Find who has the last word on a variable.

        Args:
            name (str): The variable.

        Returns:
            list[ConfigSource]: From this file down to the first one that
            sets the variable, that one included; empty if none does.
        """
        if name in self.sets:
            return [self]
        for base in self.bases:
            line = base.line_to(name)
            if line:
                return [self, *line]
        return []

    def ancestors(self) -> Iterator[ConfigSource]:
        """Go through all files this one inherits from."""
        for base in self.bases:
            yield base
            yield from base.ancestors()

    def base_config(self) -> Config:
        """Read what this file inherits, without what it sets itself."""
        merged: dict[str, Any] = {}
        for base in self.bases:
            merged.update(Config.fromfile(base.path)._cfg_dict)
        return Config(merged)


def read_sources(path: str) -> ConfigSource:
    """Read which variables the files of a config set and read.

    Args:
        path (str): A config file that MMEngine can read.

    Returns:
        ConfigSource: The file with all it inherits from.
    """
    path = osp.abspath(osp.expanduser(path))
    if not path.endswith('.py'):
        content = load(path)
        own = {key: content[key] for key in content if key != _BASE}
        source = ConfigSource(path, set(own), set(), _values_in(own))
        names = content.get(_BASE, [])
    else:
        text, names = _substituted(path)
        tree = ast.parse(text)
        source = ConfigSource(path, *_names(tree, text), _writes(tree))
        names = [*names, *_imported(tree, path)]
    for name in [names] if isinstance(names, str) else names:
        base, _ = Config._get_cfg_path(name, path)
        source.bases.append(read_sources(base))
    return source


def _substituted(path: str) -> tuple[str, list[str]]:
    """Read a file, its variables of MMEngine replaced, and its bases."""
    text = Path(path).read_text(encoding='utf-8')
    if '{{' not in text:  # such as {{ fileDirname }} and {{$NAME:default}}
        return text, Config._get_base_files(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = osp.join(folder, 'config.py')
        Config._substitute_predefined_vars(path, copy)
        Config._substitute_env_variables(copy, copy)
        text = Path(copy).read_text(encoding='utf-8')
        return text, Config._get_base_files(copy)


def _names(tree: ast.Module, text: str) -> tuple[set[str], set[str]]:
    """Which variables are set, and which are read."""
    written: set[str] = set()
    read = set(re.findall(rf'\b{_BASE}\.(\w+)', text))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            target = written if isinstance(node.ctx, ast.Store) else read
            target.add(node.id)
    return written - {_BASE}, read


def _writes(tree: ast.Module) -> set[str]:
    """The settings whose values stand in a Python config."""
    known: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _note(known, target, _values_of(node.value, known))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            _note(known, node.target, _values_of(node.value, known))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func  # train_dataloader.update(batch_size=4)
            if isinstance(called, ast.Attribute) and called.attr == 'update':
                found = _of_call(node.value, known)
                _note(known, called.value, found, is_update=True)
    return {
        _joined(name, path) for name, paths in known.items() for path in paths
    }


def _note(
    known: dict[str, set[str]],
    target: ast.expr,
    values: set[str],
    is_update: bool = False,
) -> None:
    """Add what is written to a variable, or to a setting below it."""
    path = ''
    while not isinstance(target, ast.Name):
        if isinstance(target, ast.Attribute):
            key: Any = target.attr
        elif isinstance(target, ast.Subscript) and isinstance(
            target.slice, ast.Constant
        ):
            key = target.slice.value
        else:
            return
        path = _joined(str(key), path)
        target = target.value
    found = {_joined(path, value) for value in values}
    if path or is_update:
        found |= known.get(target.id, set())
    known[target.id] = found


def _values_of(node: ast.expr, known: dict[str, set[str]]) -> set[str]:
    """Where an expression has written values, '' for the whole of it.

    Args:
        node (ast.expr): The expression.
        known (dict[str, set[str]]): The same of the file's own variables.

    Returns:
        set[str]: Dotted names below the expression.
    """
    if isinstance(node, ast.Name):
        return known.get(node.id, set())
    if isinstance(node, ast.Call) and _is_dict(node.func):
        return _of_call(node, known)
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.List):
        return _values_of(node.left, known)  # the right: at unknown places
    parts: list[tuple[Any, ast.expr]] = []
    if isinstance(node, ast.Dict):
        parts = [
            (key.value, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        ]
    elif isinstance(node, ast.List | ast.Tuple):
        for place, value in enumerate(node.elts):
            if isinstance(value, ast.Starred):
                break  # the places of what follows are not known
            parts.append((place, value))
    else:
        names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
        is_read = '{{' in ast.unparse(node)  # also in a string
        is_own = all('' in known.get(name, ()) for name in names)
        return {''} if is_own and not is_read else set()
    return {
        _joined(str(key), path)
        for key, value in parts
        for path in _values_of(value, known)
    }


def _of_call(call: ast.Call, known: dict[str, set[str]]) -> set[str]:
    """Where the arguments of ``dict`` or ``update`` have written values."""
    found = {
        _joined(keyword.arg, path)
        for keyword in call.keywords
        if keyword.arg is not None
        for path in _values_of(keyword.value, known)
    }
    for argument in call.args:
        found |= _values_of(argument, known) - {''}
    return found


def _is_dict(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id == 'dict'


def _values_in(content: Any, path: str = '') -> set[str]:
    """The same of what a file in YAML or JSON holds."""
    if isinstance(content, dict):
        parts: Any = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    else:  # what MMEngine puts there from a base was not written
        return set() if '{{' in str(content) else {path}
    return {
        found
        for key, value in parts
        for found in _values_in(value, _joined(path, str(key)))
    }


def _joined(path: str, below: str) -> str:
    """A dotted name of two, of which one may be empty."""
    return f'{path}.{below}' if path and below else path or below


def _imported(tree: ast.Module, path: str) -> list[str]:
    """The files imported under ``with read_base():``, as MMEngine finds."""
    found = []
    for block in tree.body:
        if not isinstance(block, ast.With):
            continue
        for node in block.body:
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            parts = node.module.split('.')
            if node.level:
                up = ['..'] * (node.level - 1)
                folder = osp.join(osp.dirname(path), *up)
            else:
                folder = get_installed_path(parts.pop(0))
            found.append(f'{osp.join(folder, *parts)}.py')
    return found
