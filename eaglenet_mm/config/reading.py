"""Configs by file or name, with command-line overrides."""

from __future__ import annotations

import difflib
import os
import os.path as osp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eaglenet_mm.config.keys import check_config_keys, check_options
from eaglenet_mm.config.knobs import LOADERS
from eaglenet_mm.config.variables import (
    apply_options,
    read_sources,
    resolve_variables,
)

#: Settings of a loader that torch refuses without workers.
_OF_WORKERS = (
    'persistent_workers',
    'prefetch_factor',
    'timeout',
    'multiprocessing_context',
)
_PACKAGE = Path(__file__).parents[1]
#: The first in an installation, the second in a plain checkout.
_FOLDERS = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')


def open_config(
    name: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config, resolve its variables and check its keys.

    Every entry point of the package reads configs through this function.

    Args:
        name (str | PathLike): A file, or the name of a shipped config, see
            :func:`config_path`.
        options (Mapping[str, Any], optional): Overrides of
            ``--cfg-options``, by dotted name. Default: None.

    Returns:
        Config: The config with overrides applied. Values of ``num_frames``
        and similar names, from a child config or an override, are set
        wherever they apply. Loaders with ``num_workers=0`` have no
        ``persistent_workers`` and the like.

    Raises:
        FileNotFoundError: If there is no such config.
        KeyError: If a top-level key looks mistyped, or an override names one
            that does not exist.
        ValueError, TypeError: If a child config or an override changes a
            variable that is no longer read, or sets a value that the config
            cannot honour.
    """
    path = config_path(name)
    cfg = Config.fromfile(path)
    check_config_keys(cfg)
    sources = read_sources(path)
    resolve_variables(cfg, sources)
    if options:
        check_options(cfg, options)
        apply_options(cfg, options, sources)
    for loader in LOADERS:
        _leave_out_workers(cfg.get(loader))
    return cfg


def _leave_out_workers(loader: Any) -> None:
    """Drop settings of workers, which torch refuses if there are none."""
    if isinstance(loader, dict) and not loader.get('num_workers'):
        for name in _OF_WORKERS:
            loader.pop(name, None)


def config_path(name: str | os.PathLike) -> str:
    """Find a config by file or name.

    Args:
        name (str | PathLike): A file, or a config that the package ships:
            ``'eaglenet_story'``, its full name, its path below ``configs``, or
            MMEngine's ``'eaglenet_mm::eaglenet/NAME.py'``.

    Returns:
        str: Path of the file.

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
        'folder that the path starts from.'
    )


def shipped_configs() -> dict[str, Path]:
    """List the configs of the package.

    Returns:
        dict[str, Path]: Files by name and by path below ``configs``, both
        without ``.py``.
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
