"""Changes of a config's variables: resolved, or refused where in vain.

A variable, ``pipeline = [...]`` or ``num_frames = 12``, was put into the
settings when its file was read. To change it afterwards, on the command line
or in a config over ``_base_``, changes nothing that is read. The knobs of
:mod:`~eaglenet_mm.utils.config_knobs` are put in their places then; any other
such change is an error that names the settings to change instead.
"""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from eaglenet_mm.utils.config_keys import runner_keys, variable_names
from eaglenet_mm.utils.config_knobs import (
    KNOBS,
    Request,
    knob_places,
    listed,
    same_path,
    walk,
)
from eaglenet_mm.utils.config_sources import ConfigSource

_MISSING = object()


def resolve_variables(cfg: Config, source: ConfigSource) -> None:
    """Put the variables that a config sets over its bases in their places.

    Args:
        cfg (Config): The config of the file, changed in place.
        source (ConfigSource): The file.

    Raises:
        KeyError: If a variable that nothing reads is named like a knob.
        ValueError, TypeError: If a knob has a value that the config cannot
            honour, or another variable is set and never read.
    """
    names = variable_names(cfg)
    # knobs last: the others are compared with the settings as inherited
    for name in [*sorted(names - set(KNOBS)), *sorted(names & set(KNOBS))]:
        line = source.line_to(name)
        if not line:
            continue
        inherited = line[-1].base_config()
        # who says again what was said before has not changed it
        while name in inherited and inherited[name] == cfg[name]:
            line += _next_line(line[-1], name)
            inherited = line[-1].base_config()
        setter, is_new = line[-1], name not in inherited
        is_read = any(name in reader.reads for reader in line)
        if not setter.bases:
            if name in KNOBS and setter.is_written_out:
                _warn_of_idle_variable(cfg, name)
            continue
        if name in KNOBS:
            if not (is_new and is_read):  # else it is a variable of its own
                _resolve_over_bases(cfg, name, inherited, line)
            continue
        if is_read:
            continue
        if is_new:
            _refuse_mistyped_knob(setter, name)
            continue
        places = _places_of_copies(inherited, name, setter)
        if places is not None:
            now, before = dict(walk(cfg)), inherited[name]
            if places and before not in [now.get(p) for p in places]:
                continue  # the child wrote its settings out as well
            raise ValueError(
                f'{setter.path} sets {name!r} over its _base_, but nothing '
                f'reads it any more: {_instead(name, places)}'
            )


def _next_line(setter: ConfigSource, name: str) -> list[ConfigSource]:
    """From a file, without it, down to the next one that sets a variable."""
    lines = [base.line_to(name) for base in setter.bases]
    return next(line for line in lines if line)


def _refuse_mistyped_knob(setter: ConfigSource, name: str) -> None:
    near = difflib.get_close_matches(name, KNOBS, 1, 0.85)
    if near:
        raise KeyError(
            f'{setter.path} sets {name!r}, which nothing reads; did you mean '
            f'{near[0]!r}?'
        )


def _resolve_over_bases(
    cfg: Config, name: str, inherited: Config, line: list[ConfigSource]
) -> None:
    """Put a knob of a child config wherever the child says nothing else.

    Args:
        cfg (Config): The config of the file, changed in place.
        name (str): The knob.
        inherited (Config): What the file that sets it inherits.
        line (list[ConfigSource]): From the child down to that file.
    """
    old, new = dict(walk(inherited)), dict(walk(cfg))
    written = set().union(*(file.writes for file in line))
    # a data set put into a wrapper has them at other places than before
    copies = [
        same_path(value)
        for value in (
            inherited.get(name),
            *knob_places(inherited, name).values(),
        )
    ]

    def is_own(place: str) -> bool:
        if place in written:  # maybe what it was before, on purpose
            return True
        value = new.get(place, _MISSING)
        is_changed = value != old.get(place, _MISSING)
        return is_changed and same_path(value) not in copies

    request = Request(cfg, name, cfg[name], inherited.get(name), is_own)
    _change(cfg, request.settings())


def _change(cfg: Config, settings: Mapping[str, Any]) -> None:
    """Change settings, and variables whose copies all change alike.

    What is saved beside the results then says what was used.
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
    """Turn the tuples above a setting into lists, the only ones merged."""
    holder: Any = cfg
    for part in place.split('.')[:-1]:
        key: Any = part
        if isinstance(holder, list) and part.isdigit():
            key = int(part)
            is_there = key < len(holder)
        else:
            is_there = isinstance(holder, Mapping | Config) and key in holder
        if not is_there:
            return  # what cannot be merged, MMEngine says
        if isinstance(holder[key], tuple):
            holder[key] = list(holder[key])
        holder = holder[key]


def _warn_of_idle_variable(cfg: Config, name: str) -> None:
    """Warn of a knob in a whole, dumped config that no setting agrees with."""
    places = knob_places(cfg, name)
    if name == 'ann_file' or not places:
        return
    if cfg[name] not in places.values():
        have = [f'{place}={old!r}' for place, old in places.items()]
        print_log(
            f'{cfg.filename} says {name}={cfg[name]!r}, which nothing reads '
            f'there; what counts is {listed(have)}.',
            logger='current',
            level=logging.WARNING,
        )


def apply_options(
    cfg: Config, options: Mapping[str, Any], source: ConfigSource
) -> None:
    """Change a config as the command line says.

    An option with a full dotted name wins over a knob.

    Args:
        cfg (Config): Changed in place.
        options (Mapping[str, Any]): Dotted name to value, of
            ``--cfg-options``; every top-level key exists.
        source (ConfigSource): The file of the config.

    Raises:
        ValueError, TypeError: If an option changes a variable that nothing
            reads any more, or a knob has a value that the config cannot
            honour.
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
    """Where copies of a variable are, if it was put into settings.

    Args:
        cfg (Config): Where the variable has the value that was copied.
        name (str): The variable.
        source (ConfigSource): The file that may read it, with its bases.

    Returns:
        list[str] | None: Dotted names, maybe none where a value was computed
        from it; None if nothing was made from the variable.
    """
    files = [source, *source.ancestors()]
    if any(name in file.reads for file in files):
        return _copies(cfg, name) or _equals(cfg, name)
    if any(name in file.sets and file.is_written_out for file in files):
        return _copies(cfg, name) or _equals(cfg, name) or None
    return None


def _copies(cfg: Config, name: str) -> list[str]:
    """Settings with the name and value of a variable, or a part like it."""
    equal = _equals(cfg, name)
    named = [path for path in equal if path.rpartition('.')[2] == name]
    return named or (equal if isinstance(cfg[name], dict | list) else [])


def _equals(cfg: Config, name: str) -> list[str]:
    """Settings with the value of a variable."""
    value = cfg[name]
    # None, True and nothing at all are everywhere
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
    """What a message advises in place of a change in vain."""
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
        f'{listed(names)} instead (of variables, {knobs} are put in their '
        'places).'
    )
