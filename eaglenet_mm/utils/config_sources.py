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
        bases (list[ConfigSource]): What it inherits from.
    """

    path: str
    sets: set[str]
    reads: set[str]
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
        source = ConfigSource(path, set(content) - {_BASE}, set())
        names = content.get(_BASE, [])
    else:
        text, names = _substituted(path)
        tree = ast.parse(text)
        source = ConfigSource(path, *_names(tree, text))
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
