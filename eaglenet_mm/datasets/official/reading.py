"""Readers of official annotation files, with helpful errors."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as err:
        raise FileNotFoundError(
            f"Annotation file '{path}' does not exist. docs/data.md says "
            'where the official files come from.'
        ) from err


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without byte order mark."""
    content = _read_bytes(path)
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as err:
        raise ValueError(
            f'{path}: expected text in UTF-8, but {err}. Save the file in '
            'UTF-8, or download it again.'
        ) from err
    if '\0' in text:
        line = text.count('\n', 0, text.index('\0')) + 1
        raise ValueError(
            f'{path}: line {line} holds a NUL byte, so the file is damaged. '
            'Download it again.'
        )
    return text


def read_id_list(path: Path) -> list[str]:
    """Read one id per line; blank lines are ignored."""
    lines = read_text(path).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(
            f'{path}: expected one video per line, but the file is empty.'
        )
    return names


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV table whose header has at least these columns."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=''))
    found = reader.fieldnames or []
    if not set(columns) <= set(found):
        raise ValueError(
            f'{path}: expected the columns {list(columns)}, but the first '
            f'line has {found[:10]}.'
        )
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f'{path}: line {reader.line_num} does not have {len(found)} '
                'fields like the header. A comma may need quotes.'
            )
        rows.append(row)
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys, which would silently lose a value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key {twice!r} is repeated')
    return content


def read_json(path: Path) -> Any:
    """Read UTF-8 JSON without duplicate keys."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as err:
        raise ValueError(
            f'{path}: expected JSON, but reading stopped with: {err}. The '
            'file may be cut short: download it again.'
        ) from err


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of dicts, lists, strings and numbers, never of code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every global: without globals a pickle cannot run code."""
        raise pickle.UnpicklingError(
            f'it asks for {module}.{name}, which could run code'
        )


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, strings and numbers.

    A pickle that refers to any class or function is refused, so none of it is
    executed.
    """
    file = io.BytesIO(_read_bytes(path))
    try:
        return _PlainUnpickler(file, encoding='utf-8').load()
    except Exception as err:
        # damaged pickles raise all kinds of errors
        raise ValueError(
            f'{path}: expected a pickle of dicts, lists and strings, but '
            f'{type(err).__name__}: {err}. Only the official caption files '
            'are supported; use the JSON file if there is one.'
        ) from err


def collect_captions(
    items: Sequence[Any], keys: tuple[str, str], where: str
) -> dict[str, list[str]]:
    """Collect the captions of each video from a list of objects, in order.

    ``keys`` are the keys of the video and the caption; ``where`` is a format
    string that names an object by its index, for errors.
    """
    captions: dict[str, list[str]] = {}
    for place, item in enumerate(items):
        found = item if isinstance(item, dict) else {}
        name, caption = (found.get(key) for key in keys)
        if not isinstance(name, str) or not isinstance(caption, str):
            raise ValueError(
                f'{where.format(place)} needs the strings {keys[0]!r} and '
                f'{keys[1]!r}, but is {str(item)[:100]}.'
            )
        captions.setdefault(name, []).append(caption)
    return captions


def captions_by_id(content: Any, path: Path) -> dict[str, list[str]]:
    """Check ``{id: [caption, ...]}``; captions may be lists of words."""
    if not isinstance(content, dict):
        raise ValueError(
            f'{path}: expected captions by video id, an object, but got '
            f'{type(content).__name__}.'
        )
    found: dict[str, list[str]] = {}
    for name, captions in content.items():
        if not isinstance(name, str) or not isinstance(captions, list):
            raise ValueError(
                f'{path}: expected a list of captions for each video id, but '
                f'{name!r} has {type(captions).__name__}.'
            )
        found[name] = [_sentence(x, name, path) for x in captions]
    return found


def _sentence(caption: Any, name: str, path: Path) -> str:
    """Return a caption, joined if it is a list of words."""
    words = [caption] if isinstance(caption, str) else caption
    if isinstance(words, list) and all(isinstance(x, str) for x in words):
        return ' '.join(words)
    raise ValueError(
        f'{path}: a caption of {name!r} is {type(caption).__name__}, but '
        'must be a string or a list of words.'
    )
