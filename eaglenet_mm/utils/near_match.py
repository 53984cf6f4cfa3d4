"""Files whose names nearly match."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator


def near_match(path: str) -> str | None:
    """Find an existing file or folder whose name nearly matches.

    Tries composed and decomposed accents (Unicode NFC and NFD; macOS writes
    the latter), upper and lower case of the extension or the name, and slashes
    for backslashes. No folder is listed.
    """
    for wanted in (path, path.replace('\\', '/')):
        found = _walk(wanted)
        if found is not None and found != path:
            return found
    return None


def near_match_hint(path: str) -> str:
    """Describe how the name of an existing file differs; empty if none."""
    found = near_match(path)
    if found is None:
        return ''
    differences = []
    wanted = path
    if '\\' in path and '\\' not in found:
        differences.append('slashes instead of backslashes')
        wanted = path.replace('\\', '/')
    wanted = os.path.normpath(wanted)
    composed = [unicodedata.normalize('NFC', x) for x in (wanted, found)]
    if composed[0] != composed[1]:
        differences.append('other upper and lower case')
    given, there = (_accents(name) for name in (wanted, found))
    if given != there:
        differences.append(f'accents in the Unicode form {there}, not {given}')
    return (
        f" There is '{found}', whose name has {' and '.join(differences)}: "
        'write it so, or rename the file.'
    )


def _walk(path: str) -> str | None:
    """Follow a path along the variant of each part that exists."""
    root, rest = os.path.splitdrive(path)
    found = root + os.sep if rest.startswith(os.sep) else root
    for part in rest.split(os.sep):
        if part in ('', os.curdir):
            continue
        for variant in _variants(part):
            if os.path.lexists(os.path.join(found, variant)):
                found = os.path.join(found, variant)
                break
        else:
            return None
    return found or None


def _variants(name: str) -> Iterator[str]:
    yield name
    stem, ending = os.path.splitext(name)
    for case in (
        name,
        stem + ending.lower(),
        stem + ending.upper(),
        name.lower(),
        name.upper(),
    ):
        yield unicodedata.normalize('NFC', case)
        yield unicodedata.normalize('NFD', case)


def _accents(name: str) -> str:
    """Unicode form of a text: NFC, NFD or mixed."""
    return next(
        (
            form
            for form in ('NFC', 'NFD')
            if unicodedata.is_normalized(form, name)
        ),
        'NFC and NFD mixed',
    )
