"""The name of a ``type`` in a config, however it is written."""

from collections.abc import Mapping
from typing import Any

from mmengine.utils import get_object_from_string


def type_name(settings: Mapping[str, Any] | None, default: str = '') -> str:
    """Read which class settings name.

    A config names a class by a string, with or without the scope of its
    library (``'OptimWrapper'``, ``'mmengine.OptimWrapper'``), or holds the
    class itself, as pure Python configs do. The name comes without scope.

    Example:
        >>> type_name(dict(type='mmengine.AmpOptimWrapper'))
        'AmpOptimWrapper'
        >>> type_name(dict(type=dict))
        'dict'
    """
    kind = (settings or {}).get('type', default)
    if not isinstance(kind, str):
        kind = getattr(kind, '__name__', str(kind))
    return kind.rpartition('.')[2]


def scoped_name(kind: str | type) -> str:
    """Write a class as a config names it by a string.

    With the scope of its library unless that is this package, MMEngine or
    mmcv, whose names are found without. A name stays as it is.

    Example:
        >>> from mmengine.model import ImgDataPreprocessor
        >>> scoped_name(ImgDataPreprocessor)
        'ImgDataPreprocessor'
    """
    if isinstance(kind, str):
        return kind
    library = kind.__module__.partition('.')[0]
    if library in ('eaglenet_mm', 'mmengine', 'mmcv'):
        return kind.__name__
    return f'{library}.{kind.__name__}'


def named_class(kind: Any) -> Any:
    """Find a class by its full path, as dumped pure Python configs name it.

    What is a class, or no path that leads to one, is returned as it is.

    Example:
        >>> named_class('mmengine.model.ImgDataPreprocessor').__name__
        'ImgDataPreprocessor'
        >>> named_class('ImgDataPreprocessor')
        'ImgDataPreprocessor'
    """
    if not isinstance(kind, str) or '.' not in kind:
        return kind
    found = get_object_from_string(kind)
    return found if isinstance(found, type) else kind
