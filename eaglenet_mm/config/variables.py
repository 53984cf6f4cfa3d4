"""Changes of config variables: resolved, or refused if they have no effect.

A variable, such as ``pipeline = [...]`` or ``num_frames = 12``, is copied into
the settings when its file is read, and only the files tell where. Changing it
later, on the command line or in a config over ``_base_``, has no effect. The
knobs of :mod:`~eaglenet_mm.config.knobs` are therefore set in their places;
any other such change is an error that names the settings to change instead.
"""

from __future__ import annotations

import ast
import copy
import difflib
import logging
import os.path as osp
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.logging import print_log
from mmengine.utils import get_installed_path

from eaglenet_mm.config.keys import runner_keys, variable_names
from eaglenet_mm.config.knobs import (
    KNOBS,
    Request,
    knob_places,
    same_path,
    walk,
)
from eaglenet_mm.utils.name_lists import name_some

_MISSING = object()
_BASE = '_base_'


@dataclass
class ConfigSource:
    """A file of a config, with those it inherits from."""

    path: str
    sets: set[str]  # top-level variables
    reads: set[str]  # variables of its own or of its bases
    # dotted names of settings written here rather than read from a base
    writes: set[str] = field(default_factory=set)
    bases: list[ConfigSource] = field(default_factory=list)

    @property
    def is_written_out(self) -> bool:
        """Whether no variable is read, as in a dumped config."""
        return not self.sets & self.reads

    def line_to(self, name: str) -> list[ConfigSource]:
        """Path through the files to the one that determines a variable."""
        if name in self.sets:
            return [self]
        for base in self.bases:
            line = base.line_to(name)
            if line:
                return [self, *line]
        return []

    def ancestors(self) -> Iterator[ConfigSource]:
        """Iterate over all files this one inherits from."""
        for base in self.bases:
            yield base
            yield from base.ancestors()

    def base_config(self) -> Config:
        """Config without the settings of this file."""
        merged: dict[str, Any] = {}
        for base in self.bases:
            merged.update(Config.fromfile(base.path)._cfg_dict)
        return Config(merged)


def read_sources(path: str) -> ConfigSource:
    """Find which variables the files of a config set and read."""
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
    """Read a file with MMEngine's placeholders replaced, and its bases."""
    text = Path(path).read_text(encoding='utf-8')
    if '{{' not in text:  # such as {{ fileDirname }} and {{$NAME:default}}
        return text, Config._get_base_files(path)
    with tempfile.TemporaryDirectory() as folder:
        target = osp.join(folder, 'config.py')
        Config._substitute_predefined_vars(path, target)
        Config._substitute_env_variables(target, target)
        text = Path(target).read_text(encoding='utf-8')
        return text, Config._get_base_files(target)


def _names(tree: ast.Module, text: str) -> tuple[set[str], set[str]]:
    """Variables that are set, and variables that are read."""
    written: set[str] = set()
    read = set(re.findall(rf'\b{_BASE}\.(\w+)', text))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            target = written if isinstance(node.ctx, ast.Store) else read
            target.add(node.id)
    return written - {_BASE}, read


def _writes(tree: ast.Module) -> set[str]:
    """Settings whose values are written in a Python config."""
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
    """Record what is written to a variable or a setting below it."""
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
    """Dotted names of written values in an expression; '' for all of it."""
    if isinstance(node, ast.Name):
        return known.get(node.id, set())
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
        return _of_call(node, known)
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.List):
        return _values_of(node.left, known)  # the right has unknown positions
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
                break  # positions beyond are unknown
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
    """Dotted names of written values in a call of ``dict`` or ``update``."""
    found = {
        _joined(keyword.arg, path)
        for keyword in call.keywords
        if keyword.arg is not None
        for path in _values_of(keyword.value, known)
    }
    for argument in call.args:
        found |= _values_of(argument, known) - {''}
    return found


def _values_in(content: Any, path: str = '') -> set[str]:
    """Dotted names of written values in a YAML or JSON file."""
    if isinstance(content, dict):
        parts: Any = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    else:  # placeholders are filled from a base
        return set() if '{{' in str(content) else {path}
    return {
        found
        for key, value in parts
        for found in _values_in(value, _joined(path, str(key)))
    }


def _joined(path: str, below: str) -> str:
    """Join two dotted names, either of which may be empty."""
    return f'{path}.{below}' if path and below else path or below


def _imported(tree: ast.Module, path: str) -> list[str]:
    """Files imported under ``with read_base():``, located as in MMEngine."""
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


def resolve_variables(cfg: Config, source: ConfigSource) -> None:
    """Set the variables of a child config wherever they apply."""
    names = variable_names(cfg)
    # knobs last, because the others are compared with inherited settings
    for name in [*sorted(names - set(KNOBS)), *sorted(names & set(KNOBS))]:
        line = source.line_to(name)
        if not line:
            continue
        inherited = line[-1].base_config()
        # a file that repeats the inherited value does not change it
        while name in inherited and inherited[name] == cfg[name]:
            lines = [base.line_to(name) for base in line[-1].bases]
            line += next(filter(None, lines))
            inherited = line[-1].base_config()
        setter, is_new = line[-1], name not in inherited
        is_read = any(name in reader.reads for reader in line)
        if not setter.bases:
            if name in KNOBS and setter.is_written_out:
                _warn_of_idle_variable(cfg, name)
            continue
        if name in KNOBS:
            if not (is_new and is_read):  # else the child's own variable
                _resolve_over_bases(cfg, name, inherited, line)
            continue
        if is_read:
            continue
        if is_new:
            near = difflib.get_close_matches(name, KNOBS, 1, 0.85)
            if near:
                raise KeyError(
                    f'{setter.path} sets {name!r}, which nothing reads; did '
                    f'you mean {near[0]!r}?'
                )
            continue
        places = _places_of_copies(inherited, name, setter)
        if places is not None:
            now, before = dict(walk(cfg)), inherited[name]
            if places and before not in [now.get(p) for p in places]:
                continue  # the child also changed the settings
            raise ValueError(
                f'{setter.path} sets {name!r} over its _base_, but nothing '
                f'reads it any more: {_instead(name, places)}'
            )


def _resolve_over_bases(
    cfg: Config, name: str, inherited: Config, line: list[ConfigSource]
) -> None:
    """Set a knob of a child config wherever the child has no own value."""
    old, new = dict(walk(inherited)), dict(walk(cfg))
    written = set().union(*(file.writes for file in line))
    # wrapping a dataset moves its settings to other places
    copies = [
        same_path(value)
        for value in (
            inherited.get(name),
            *knob_places(inherited, name).values(),
        )
    ]

    def is_own(place: str) -> bool:
        if place in written:  # even if equal to the inherited value
            return True
        value = new.get(place, _MISSING)
        is_changed = value != old.get(place, _MISSING)
        return is_changed and same_path(value) not in copies

    request = Request(cfg, name, cfg[name], inherited.get(name), is_own)
    _change(cfg, request.settings())


def _change(cfg: Config, settings: Mapping[str, Any]) -> None:
    """Change settings, and variables all of whose copies change alike.

    The saved config then says what was used.
    """
    copies = {name: _copies(cfg, name) for name in variable_names(cfg)}
    for place in settings:
        _make_changeable(cfg, place)
    cfg.merge_from_dict(dict(settings))
    now = dict(walk(cfg))
    for name, places in copies.items():
        values = [now.get(place, _MISSING) for place in places]
        if not values or values[0] is _MISSING:
            continue
        if all(value == values[0] for value in values):
            cfg[name] = copy.deepcopy(values[0])


def _make_changeable(cfg: Config, place: str) -> None:
    """Turn tuples above a setting into lists, since only those merge."""
    holder: Any = cfg
    for part in place.split('.')[:-1]:
        key: Any = part
        if isinstance(holder, list) and part.isdigit():
            key = int(part)
            is_there = key < len(holder)
        else:
            is_there = isinstance(holder, Mapping | Config) and key in holder
        if not is_there:
            return  # MMEngine reports it
        if isinstance(holder[key], tuple):
            holder[key] = list(holder[key])
        holder = holder[key]


def _warn_of_idle_variable(cfg: Config, name: str) -> None:
    """Warn of a knob in a dumped config that no setting agrees with."""
    places = knob_places(cfg, name)
    if name == 'ann_file' or not places:
        return
    if cfg[name] not in places.values():
        have = [f'{place}={old!r}' for place, old in places.items()]
        print_log(
            f'{cfg.filename} says {name}={cfg[name]!r}, which nothing reads '
            f'there; what counts is {name_some(have)}.',
            logger='current',
            level=logging.WARNING,
        )


def apply_options(
    cfg: Config, options: Mapping[str, Any], source: ConfigSource
) -> None:
    """Apply command-line overrides.

    A full dotted name takes precedence over a knob.
    """
    variables = variable_names(cfg)
    knobs: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for option, value in options.items():
        name, _, rest = option.partition('.')
        if name in KNOBS:
            if name == 'ann_file' and rest:
                knobs[name] = {**knobs.get(name, {}), rest: value}
            elif rest:
                raise ValueError(
                    f'--cfg-options sets {option!r}, but {name} is a single '
                    f'value. Write {name}={value}.'
                )
            else:
                knobs[name] = value
            continue
        if name in variables:
            places = _places_of_copies(cfg, name, source)
            if places is not None:
                raise ValueError(
                    f'--cfg-options sets {option!r}, a variable of '
                    f'{cfg.filename} that nothing reads any more: '
                    f'{_instead(option, places)}'
                )
        own[option] = value
    declared = {name: cfg.get(name) for name in knobs}
    _change(cfg, own)

    def is_own(place: str) -> bool:
        return any(f'{place}.'.startswith(f'{option}.') for option in own)

    for name, value in knobs.items():
        request = Request(cfg, name, value, declared[name], is_own)
        _change(cfg, request.settings())
        if name == 'ann_file' and isinstance(cfg.get(name), Mapping):
            value = {**cfg[name], **value}
        cfg[name] = value


def _places_of_copies(
    cfg: Config, name: str, source: ConfigSource
) -> list[str] | None:
    """Places of the copies of a variable; None if it was never copied."""
    files = [source, *source.ancestors()]
    places = _copies(cfg, name) or _equals(cfg, name)
    if any(name in file.reads for file in files):
        return places
    if any(name in file.sets and file.is_written_out for file in files):
        return places or None
    return None


def _copies(cfg: Config, name: str) -> list[str]:
    """Settings with the name and value of a variable, or equal containers."""
    equal = _equals(cfg, name)
    named = [path for path in equal if path.rpartition('.')[2] == name]
    return named or (equal if isinstance(cfg[name], dict | list) else [])


def _equals(cfg: Config, name: str) -> list[str]:
    """Settings with the value of a variable."""
    value = cfg[name]
    # None, booleans and empty values occur everywhere
    is_telling = not isinstance(value, bool) and (value or value == 0)
    known = runner_keys()
    return [
        path
        for path, part in walk({key: cfg[key] for key in cfg if key in known})
        if type(part) is type(value)
        and part == value
        and (is_telling or path.rpartition('.')[2] == name)
    ]


def _instead(option: str, places: list[str]) -> str:
    """Advice in place of a change without effect."""
    _, dot, rest = option.partition('.')
    if not places:
        return (
            'it was put into the settings when the file was read. Change '
            'those settings by their full dotted names, or the file.'
        )
    names = [f'{place}{dot}{rest}' for place in places]
    knobs = ', '.join(KNOBS)
    return (
        'it was copied into the settings when the file was read. Set '
        f'{name_some(names)} instead (of variables, {knobs} are put in their '
        'places).'
    )
