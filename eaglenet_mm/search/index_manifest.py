"""The table of contents of an index: ``index.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eaglenet_mm.search.errors import DamagedIndexError, IndexWriteError
from eaglenet_mm.search.part_file import FORMAT, VERSION, sync_folder
from eaglenet_mm.search.precision import PRECISIONS

NAME = 'index.json'


@dataclass
class IndexManifest:
    """What an index holds and which model made it.

    Args:
        model (dict[str, Any]): Of
            :class:`~eaglenet_mm.search.model_identity.ModelIdentity`.
        precision (str): Of the kept numbers.
        segment (float): Seconds of a segment; 0 for whole videos.
        parts (list[str]): Names of the joined parts, in their order.
        next_sequence (int): Parts numbered from here on were written later
            than this file, and belong to the index too.
        next_row_id (int): Rows so far have lower numbers, removed ones too.
        removed (dict[str, int]): Paths that were taken out; what parts
            numbered below the value say of them does not count.
    """

    model: dict[str, Any]
    precision: str = 'float32'
    segment: float = 0.0
    parts: list[str] = field(default_factory=list)
    next_sequence: int = 0
    next_row_id: int = 0
    removed: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            IndexWriteError: If it cannot be written.
        """
        content = {'format': FORMAT, 'version': VERSION, **asdict(self)}
        content['checksum'] = _checksum(content)
        path = folder / NAME
        temporary = folder / f'.{NAME}.part'
        try:
            with temporary.open('w', encoding='utf-8') as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(folder)
        except OSError as err:
            temporary.unlink(missing_ok=True)
            raise IndexWriteError(
                f'{path} could not be written: {err}. The index is as it '
                'was; make room, or check the permissions, and run the same '
                'command again.'
            ) from err

    @classmethod
    def read(cls, folder: Path) -> IndexManifest:
        """Read and check the file.

        Raises:
            FileNotFoundError: If the folder holds no index.
            DamagedIndexError: If the file is not what was written, or of
                another version.
        """
        path = folder / NAME
        if not path.is_file():
            raise FileNotFoundError(
                f'{folder} holds no index of videos: {NAME} is missing. Make '
                'one with tools/index.py, or correct the path.'
            )
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except (ValueError, RecursionError) as err:
            raise _damaged(path, str(err)) from err
        if not isinstance(content, dict) or content.pop('format', 0) != FORMAT:
            raise _damaged(path, 'it is no table of contents of an index')
        version = content.pop('version', None)
        if version != VERSION:
            raise DamagedIndexError(
                f'{path} has version {version} of the index format, but this '
                f'package reads version {VERSION}. Make the index again, or '
                'use the package that made it.'
            )
        stated = content.pop('checksum', None)
        content = {'format': FORMAT, 'version': VERSION, **content}
        if stated != _checksum(content):
            raise _damaged(path, 'its content is not what was written')
        del content['format'], content['version']
        wrong = [
            name
            for name, kind in _KINDS.items()
            if not kind(content.get(name))
        ]
        if wrong or set(content) != set(_KINDS):
            raise _damaged(path, f'{wrong or sorted(content)} cannot be')
        return cls(**content)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


_KINDS: dict[str, Callable[[Any], bool]] = {
    'model': lambda value: isinstance(value, dict),
    'precision': lambda value: value in PRECISIONS,
    'segment': lambda value: isinstance(value, int | float) and value >= 0,
    'parts': lambda value: (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
    ),
    'next_sequence': _is_count,
    'next_row_id': _is_count,
    'removed': lambda value: (
        isinstance(value, dict) and all(map(_is_count, value.values()))
    ),
}


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode('utf-8')).hexdigest()


def _damaged(path: Path, reason: str) -> DamagedIndexError:
    return DamagedIndexError(
        f'{path} is damaged: {reason}. Restore it from a copy, or make the '
        'index again.'
    )
