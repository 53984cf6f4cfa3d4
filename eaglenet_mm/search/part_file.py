"""A part of an index as a file: safetensors, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError, IndexWriteError
from eaglenet_mm.search.index_part import EAGER, IndexPart
from eaglenet_mm.search.part_checks import MEND, check_tensors
from eaglenet_mm.search.records import IndexedFile
from eaglenet_mm.search.row_packing import check_layout

FORMAT = 'eaglenet_mm video index'
#: Raised when files of the older form can no longer be read.
VERSION = '1'

_RECORDS = 'records'


def write_part(part: IndexPart, path: Path) -> None:
    """Write a part.

    The file appears under its name only when all of it is on the disk.

    Args:
        part (IndexPart): The part.
        path (Path): The file.

    Raises:
        IndexWriteError: If it cannot be written.
    """
    text = json.dumps(
        {
            'files': [file.to_json() for file in part.files],
            'layout': part.layout,
        }
    )
    tensors = {
        **part.tensors,
        _RECORDS: torch.frombuffer(
            bytearray(text.encode('utf-8')), dtype=torch.uint8
        ),
    }
    # offsets of a file need contiguous tensors
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    about = {
        'format': FORMAT,
        'version': VERSION,
        'checksum': _eager_checksum(tensors),
    }
    temporary = path.with_name(f'.{path.name}.part')
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # save_file would let nobody else read
        save_file(tensors, temporary, about)
        os.chmod(temporary, mode)
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as err:
        temporary.unlink(missing_ok=True)
        raise IndexWriteError(
            f'{path} could not be written: {err}. What was indexed before '
            'is kept; make room, or check the permissions, and run the same '
            'command again.'
        ) from err


def read_part(path: Path) -> IndexPart:
    """Read a part; what is needed of a row only is left on the disk.

    Args:
        path (Path): The file.

    Returns:
        IndexPart: Its lazy tensors are views of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedIndexError: If it is not what was written.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist.')
    try:
        with safe_open(path, 'pt') as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, RuntimeError) as err:
        if not path.is_file():  # joined into another part meanwhile
            raise FileNotFoundError(f'{path} does not exist.') from err
        if isinstance(err, OSError) and err.errno is not None:
            raise  # no permission, too many open files: the file may be whole
        raise DamagedIndexError(f'{path} is damaged ({err}). {MEND}') from err
    _check_about(about, path)
    if about.get('checksum') != _eager_checksum(tensors):
        raise DamagedIndexError(
            f'{path} is damaged: its content is not what was written. {MEND}'
        )
    try:
        content = json.loads(tensors.pop(_RECORDS).numpy().tobytes())
        files = [
            IndexedFile.from_json(record, str(path))
            for record in content['files']
        ]
        layout = content['layout']
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise DamagedIndexError(
            f'{path}: what it says of its files is not understood ({err!r}). '
            f'{MEND}'
        ) from err
    check_tensors(tensors, len(files), str(path))
    width = tensors['rows'].shape[1] if tensors else 0
    return IndexPart(
        files,
        tensors,
        check_layout(layout, width, str(path)),
        str(path),
    )


def sync_folder(folder: Path) -> None:
    """Bring new and changed names of a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_about(about: dict[str, str], path: Path) -> None:
    if about.get('format') != FORMAT:
        raise DamagedIndexError(
            f'{path} is no part of a video index. Give the folder that '
            'tools/index.py wrote.'
        )
    if about.get('version') != VERSION:
        raise DamagedIndexError(
            f'{path} has version {about.get("version")} of the index format, '
            f'but this package reads version {VERSION}. Make the index '
            'again, or use the package that made it.'
        )


def _eager_checksum(tensors: dict[str, Tensor]) -> str:
    """Hash names and shapes of all tensors, and the content of eager ones."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        if name in EAGER or name == _RECORDS:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
