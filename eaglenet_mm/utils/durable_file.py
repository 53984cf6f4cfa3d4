"""Atomic replacement of files."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Names of incomplete files, which killed processes leave behind.
PARTIAL_NAME = re.compile(r'\..{1,40}\.[0-9a-f]{32}\.part', re.DOTALL)


@contextmanager
def replace_durably(path: str | Path) -> Iterator[Path]:
    """Replace a file atomically, even if the power fails.

    Yields an empty hidden file beside it to write to, which takes the name
    when the block ends and is removed if it raises. The folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name[:40]}.{uuid.uuid4().hex}.part')
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        os.chmod(part, mode)  # safetensors makes files private
        with part.open('rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text_durably(path: str | Path, text: str) -> None:
    """Replace a UTF-8 text file with :func:`replace_durably`."""
    with replace_durably(path) as part:
        part.write_text(text, encoding='utf-8', newline='\n')


def sync_folder(folder: Path) -> None:
    """Make added and removed names in a folder survive a power loss."""
    if os.name == 'nt':  # journals names, and cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
