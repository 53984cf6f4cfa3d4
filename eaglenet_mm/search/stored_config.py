"""The config of a model inside of an index: data that cannot run code."""

from __future__ import annotations

from typing import Any

from .errors import VideoIndexError

#: Prefixes of registered names. A longer path is something to import.
_SCOPES = ('eaglenet_mm', 'mmengine', 'mmcv', 'mmaction', 'mmpretrain')
_TUPLE = '__tuple__'


def to_plain(value: Any) -> Any:
    """Turn settings into what JSON can hold.

    Args:
        value (Any): Dicts, lists, tuples, text, numbers.

    Raises:
        VideoIndexError: If something else is among them.
    """
    if isinstance(value, dict):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [to_plain(part) for part in value]}
    if isinstance(value, list):
        return [to_plain(part) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise VideoIndexError(
        f'The config holds {value!r}, which an index cannot store. Name '
        'classes by their registered names in the config.'
    )


def from_plain(value: Any) -> Any:
    """Turn what :func:`to_plain` made into settings, and check it.

    MMEngine imports a ``type`` that is a path of modules. An index may come
    from anywhere, so only registered names are taken.

    Raises:
        VideoIndexError: If a ``type`` is more than a registered name.
    """
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_TUPLE}:
        return tuple(from_plain(part) for part in value[_TUPLE])
    kind = value.get('type')
    if isinstance(kind, str) and not _is_registered_name(kind):
        raise VideoIndexError(
            f"The config stored in the index asks for '{kind[:80]}', which is "
            'no registered name and would be imported. Give the config of '
            'the model (--config) if you trust it.'
        )
    return {key: from_plain(part) for key, part in value.items()}


def _is_registered_name(kind: str) -> bool:
    scope, _, name = kind.rpartition('.')
    if kind.startswith(('timm.', 'open_clip.')):  # names have dots
        return True
    return bool(name) and (not scope or scope in _SCOPES)
