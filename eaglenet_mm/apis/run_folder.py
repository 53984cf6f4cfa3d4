"""Folders of runs: who works there, and files that are whole or absent."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eaglenet_mm.apis.tool_process import RunError


def chosen_checkpoint(folder: Path) -> Path:
    """Find what a training leaves for the test.

    Args:
        folder (Path): Its work directory.

    Returns:
        Path: The best checkpoint on the validation list, the last one where
        none was chosen.

    Raises:
        RunError: If there is no checkpoint.
    """
    best = sorted(
        folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime
    )
    if best:
        return best[-1]
    last = folder / 'last_checkpoint'
    if not last.exists():
        raise RunError(
            f'The training left no checkpoint in {folder}. Set '
            'default_hooks.checkpoint of the config.'
        )
    return Path(last.read_text('utf-8').strip())


def write_whole(file: Path, content: dict[str, Any]) -> None:
    """Write JSON, complete or not at all."""
    part = file.with_name(f'{file.name}.part')
    part.write_text(f'{json.dumps(content, indent=2)}\n', encoding='utf-8')
    os.replace(part, file)


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """Keep a second comparison out of the folder; gives the open file."""
    with file.open('w') as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise RuntimeError(
                f'Another comparison is at work in {file.parent}. Wait for '
                'it, or give another --work-dir.'
            ) from err
        yield handle.fileno()
