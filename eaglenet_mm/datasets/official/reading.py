"""Reading the forms that official files come in, with errors that help."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Read a file in UTF-8, with or without the mark of Windows editors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8, or holds NUL bytes.
    """
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except (FileNotFoundError, IsADirectoryError) as err:
        raise FileNotFoundError(
            f"Annotation file '{path}' does not exist. docs/data.md says "
            'where the official files come from.'
        ) from err
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
    """Read one id a line; blank lines do not count.

    Raises:
        ValueError: If no line has an id.
    """
    names = [line.strip() for line in read_text(path).splitlines()]
    names = [name for name in names if name]
    if not names:
        raise ValueError(
            f'{path}: expected one video a line, but the file is empty.'
        )
    return names


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table with a head line.

    Args:
        path (Path): The file.
        columns (Sequence[str]): Columns it must have.

    Raises:
        ValueError: If a column is missing, or a row is shorter or longer
            than the head.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=''))
    found = reader.fieldnames or []
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(
            f'{path}: expected the columns {list(columns)}, but the first '
            f'line has {found[:10]}.'
        )
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f'{path}: line {reader.line_num} has not as many fields as '
                f'the first line ({len(found)}). A comma may need quotes.'
            )
        rows.append(row)
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names a key twice: one value would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key {twice!r} stands twice')
    return content


def read_json(path: Path) -> Any:
    """Read JSON in UTF-8.

    Raises:
        ValueError: If it is not JSON, or names a key twice in one object.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as err:
        raise ValueError(
            f'{path}: expected JSON, but reading stopped with: {err}. The '
            'file may be cut short: download it again.'
        ) from err


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings and numbers, and nothing that is code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every global; without one a pickle can call nothing."""
        raise pickle.UnpicklingError(
            f'it asks for {module}.{name}, which could run code'
        )


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, strings and numbers.

    Nothing in it is executed: a pickle that names any class or function is
    refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no pickle, or asks for more.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Annotation file '{path}' does not exist. docs/data.md says "
            'where the official files come from.'
        )
    try:
        with path.open('rb') as file:
            return _PlainUnpickler(file, encoding='utf-8').load()
    except Exception as err:
        # damaged pickles raise errors of many kinds
        raise ValueError(
            f'{path}: expected a pickle of dicts, lists and strings, but '
            f'{type(err).__name__}: {err}. Only the official caption files '
            'are read; take the JSON form if there is one.'
        ) from err


def captions_by_id(content: Any, path: Path) -> dict[str, list[str]]:
    """Bring ``{id: [caption, ...]}`` to strings.

    Args:
        content (Any): The mapping. A caption is a string or a list of words.
        path (Path): Where it comes from, for messages.

    Raises:
        ValueError: If it has another form.
    """
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
    """Take a caption as it is, or join its words."""
    if isinstance(caption, str):
        return caption
    if isinstance(caption, list) and all(isinstance(x, str) for x in caption):
        return ' '.join(caption)
    raise ValueError(
        f'{path}: a caption of {name!r} is {type(caption).__name__}, but '
        'must be a string or a list of words.'
    )
