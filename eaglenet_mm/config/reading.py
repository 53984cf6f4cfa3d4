"""Reading a config by its file or name, with what the command line changes."""

from __future__ import annotations

import difflib
import os
import os.path as osp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eaglenet_mm.config.keys import check_config_keys, check_options
from eaglenet_mm.config.variables import (
    apply_options,
    read_sources,
    resolve_variables,
)

_PACKAGE = Path(__file__).parents[1]
#: An installation has links or copies; a checkout without links, the folder.
_FOLDERS = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')


def open_config(
    name: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config as it is to be used.

    Everything that takes a config reads it here, so that names, variables
    and mistyped keys mean the same everywhere.

    Args:
        name (str | PathLike): A file, or the name of a shipped config, see
            :func:`config_path`.
        options (Mapping[str, Any], optional): Dotted name to value, of
            ``--cfg-options``. Default: None.

    Returns:
        Config: With what a child config says of ``num_frames`` and its like,
        and the options, put wherever it matters.

    Raises:
        FileNotFoundError: If there is no such config.
        KeyError: If a top-level key is not known but resembles one that is,
            or an option sets one that does not exist.
        ValueError, TypeError: If a child config or an option changes a
            variable that nothing reads any more, or sets a value that the
            config cannot honour.
    """
    path = config_path(name)
    cfg = Config.fromfile(path)
    check_config_keys(cfg)
    sources = read_sources(path)
    resolve_variables(cfg, sources)
    if options:
        check_options(cfg, options)
        apply_options(cfg, options, sources)
    return cfg


def config_path(name: str | os.PathLike) -> str:
    """Find a config by its file or its name.

    Args:
        name (str | PathLike): A file, or a config that the package ships:
            ``'eaglenet_toy'``, its full name, its path below ``configs``, or
            MMEngine's ``'eaglenet_mm::eaglenet/NAME.py'``.

    Returns:
        str: The file.

    Raises:
        FileNotFoundError: If there is none; the message lists similar names.
    """
    given = os.fspath(name)
    path = osp.expanduser(given)
    if osp.isfile(path):
        return path
    shipped = shipped_configs()
    wanted = given.removeprefix('eaglenet_mm::').removesuffix('.py')
    if wanted in shipped:
        return str(shipped[wanted])
    near = difflib.get_close_matches(Path(wanted).stem, shipped, 5, 0.4)
    raise FileNotFoundError(
        f"A config file was expected at {given}, but '{given}' is neither a "
        'file nor the name of a config of this package. Similar names: '
        f'{", ".join(near) or "none"}. Give a full path, or run from the '
        'folder that a path begins in.'
    )


def shipped_configs() -> dict[str, Path]:
    """List the configs of the package.

    Returns:
        dict[str, Path]: By name, and by path below ``configs``, both without
        ``.py``.
    """
    found: dict[str, Path] = {}
    for folder in _FOLDERS:
        if found or not (folder / '_base_').is_dir():
            continue
        for path in sorted(folder.rglob('*.py')):
            below = path.relative_to(folder).with_suffix('')
            if '_base_' not in below.parts:
                found[below.name] = found[below.as_posix()] = path
    return found
