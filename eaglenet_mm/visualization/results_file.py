"""Atomic writing, and reading, of results and pages."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from eaglenet_mm.utils.durable_file import write_text_durably
from eaglenet_mm.visualization.results_data import (
    FORMAT,
    VERSION,
    RetrievalResults,
)

#: Files of a results folder.
RESULTS_NAME = 'results.json'
PAGE_NAME = 'results.html'


def prepare_folder(folder: str | Path) -> Path:
    """Create a results folder and check early that it is writable.

    Results of an earlier test are removed, so that an aborted test does not
    leave those of another checkpoint.
    """
    path = Path(folder)
    trial = path / f'.trial-{os.getpid()}'
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b'')
        trial.unlink()
        for name in (RESULTS_NAME, PAGE_NAME):
            (path / name).unlink(missing_ok=True)
    except OSError as err:
        raise OSError(
            f"Results cannot be written to '{path}': {_reason(err)}. Name "
            'another folder (--show-dir of tools/test.py), or make this one '
            'writable.'
        ) from err
    return path


def write_text(path: str | Path, text: str) -> None:
    """Write a file atomically; errors say what to do."""
    # captions may contain unpaired surrogates, which UTF-8 cannot encode
    content = text.encode('utf-8', 'replace')
    try:
        write_text_durably(path, content.decode('utf-8'))
    except OSError as err:
        size = len(content) / 2**20
        mend = (
            f'It needs {size:.1f} MiB: free some space, or show fewer queries '
            '(--show-queries)'
            if err.errno in (errno.ENOSPC, errno.EDQUOT)
            else 'Name another folder, or make this one writable'
        )
        raise OSError(
            f"'{path}' cannot be written: {_reason(err)}. {mend}."
        ) from err


def write_results(folder: str | Path, results: RetrievalResults) -> Path:
    """Write ``results.json`` of a results folder.

    Args:
        folder (str | Path): Results folder, created if missing.
        results (RetrievalResults): The results.

    Returns:
        Path: The file.

    Raises:
        OSError: If it cannot be written; an existing file is kept.
    """
    path = Path(folder) / RESULTS_NAME
    text = json.dumps(
        results.to_dict(), ensure_ascii=False, separators=(',', ':')
    )
    write_text(path, text)
    return path


def read_results(folder: str | Path) -> RetrievalResults:
    """Read ``results.json`` of a results folder.

    Args:
        folder (str | Path): Folder of ``--show-dir``, or the file itself.

    Returns:
        RetrievalResults: The results.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If it cannot be read.
        ValueError: If it is damaged, unrelated or of another version.
    """
    path = Path(folder)
    if path.is_dir():
        path = path / RESULTS_NAME
    again = f'Write it again: tools/test.py ... --show-dir {path.parent}'
    if not path.is_file():
        raise FileNotFoundError(
            f"Results were expected at '{path}', but there is no such file. "
            f'{again}.'
        )
    try:
        data: Any = json.loads(path.read_text(encoding='utf-8'))
    except OSError as err:
        raise OSError(f"'{path}' cannot be read: {_reason(err)}.") from err
    except (ValueError, RecursionError) as err:
        raise ValueError(
            f"'{path}' is damaged: it is not JSON ({err}). {again}."
        ) from err
    if not isinstance(data, dict) or data.get('format') != FORMAT:
        raise ValueError(
            f"'{path}' is not a results file of an evaluation: its format is "
            f'not {FORMAT!r}. {again}.'
        )
    if data.get('version') != VERSION:
        raise ValueError(
            f"'{path}' has version {data.get('version')!r} of the format, "
            f'but this installation reads version {VERSION}. {again}, or use '
            'the eaglenet_mm that wrote it.'
        )
    try:
        return RetrievalResults.from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        said = f'it lacks {err}.' if isinstance(err, KeyError) else err
        raise ValueError(f"'{path}' is damaged: {said} {again}.") from err


def _reason(err: OSError) -> str:
    """Return the system's message without the file name."""
    return err.strerror or str(err)
