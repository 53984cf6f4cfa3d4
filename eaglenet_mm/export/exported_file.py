"""Files that appear complete or not at all, and what is said of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .parity import Parity


@dataclass(frozen=True)
class ExportedFile:
    """One exported program.

    Args:
        path (Path): The file.
        format (str): ``'onnx'`` or ``'torch.export'``.
        inputs (dict): By name, ``dtype`` and ``shape`` with open sizes by
            name.
        outputs (dict): Likewise.
        metadata (dict): What the file says of itself.
        parity (Parity, optional): Difference to the model. None: it was not
            measured.
        seconds (float): For tracing, writing and checking.
        sha256 (dict): Of the file, and of the file of its weights if that is
            another one, by name.
        num_bytes (int): Of them together.
    """

    path: Path
    format: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    metadata: dict[str, Any]
    parity: Parity | None
    seconds: float
    sha256: dict[str, str]
    num_bytes: int


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a folder whose files move to another one if all goes well.

    Args:
        folder (Path): Made if it is not there.

    Returns:
        Iterator[Path]: An empty folder beside the files to be, on the same
        disk.

    Raises:
        OSError: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inner = Path(tempfile.mkdtemp(prefix='.export-', dir=folder))
    except OSError as err:
        raise OSError(
            f'The export needs a folder it can write to, but {folder} is '
            f'none ({err}). Choose another folder.'
        ) from err
    try:
        yield inner
        # weights beside a model end with .data and come before it, since the
        # model is what is looked for; a summary (.json) comes last
        order = {'.data': 0, '.json': 2}
        for path in sorted(
            inner.iterdir(), key=lambda x: (order.get(x.suffix, 1), x.name)
        ):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(inner, ignore_errors=True)


def hash_file(path: str | Path) -> str:
    """Hash a file by SHA-256."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(2**20), b''):
            digest.update(block)
    return digest.hexdigest()
