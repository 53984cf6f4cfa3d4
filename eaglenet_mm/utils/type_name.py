"""Class names in configs."""

from collections.abc import Mapping
from typing import Any

from mmengine.utils import get_object_from_string


def type_name(settings: Mapping[str, Any] | None, default: str = '') -> str:
    """Return the name of the class in ``type``, without scope.

    A config names it by a string, with or without the scope of its library
    (``'mmengine.OptimWrapper'``), or, in pure Python, by the class itself.
    """
    kind = (settings or {}).get('type', default)
    if not isinstance(kind, str):
        kind = getattr(kind, '__name__', str(kind))
    return kind.rpartition('.')[2]


def scoped_name(kind: str | type) -> str:
    """Return the name by which a config finds a class.

    It has the scope of its library, except for this package, MMEngine and
    mmcv. A string is returned unchanged.
    """
    if isinstance(kind, str):
        return kind
    library = kind.__module__.partition('.')[0]
    if library in ('eaglenet_mm', 'mmengine', 'mmcv'):
        return kind.__name__
    return f'{library}.{kind.__name__}'


def named_class(kind: Any) -> Any:
    """Find a class by its full path, as in dumped pure Python configs.

    Anything but the path of a class is returned unchanged.
    """
    if not isinstance(kind, str) or '.' not in kind:
        return kind
    found = get_object_from_string(kind)
    return found if isinstance(found, type) else kind
