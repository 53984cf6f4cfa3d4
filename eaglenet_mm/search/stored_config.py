"""The config of a model inside of an index: data that cannot run code."""

from __future__ import annotations

import importlib
from typing import Any

from eaglenet_mm.registry import (
    MODELS,
    SCOPE,
    TOKENIZERS,
    TRANSFORMS,
)
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.utils.type_name import named_class, scoped_name

TUPLE = '__tuple__'
#: What builds a model without weights: a checkpoint has them all.
_WEIGHTS = ('pretrained', 'init_cfg')
#: Libraries whose registered parts a stored config may name.
_LIBRARIES = ('mmaction', 'mmpretrain')


def to_plain(value: Any) -> Any:
    """Turn settings into what JSON can hold."""
    if isinstance(value, dict):
        plain = {
            str(key): to_plain(part)
            for key, part in value.items()
            # of a config that was inherited as 'eaglenet_mm::...'
            if (key, part) != ('_scope_', SCOPE)
        }
        kind = plain.get('type')
        if isinstance(kind, str) and not _is_registered(kind):
            plain['type'] = scoped_name(named_class(kind))
        return plain
    if isinstance(value, tuple):
        return {TUPLE: [to_plain(part) for part in value]}
    if isinstance(value, list):
        return [to_plain(part) for part in value]
    if isinstance(value, type) and _is_registered(scoped_name(value)):
        return scoped_name(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise VideoIndexError(
        f'The config holds {value!r}, which an index cannot store. Name '
        'classes by their registered names in the config.'
    )


def without_weights(value: Any) -> Any:
    """Leave out what tells where weights come from, at every depth."""
    from eaglenet_mm.models.encoders.clip_tower import (
        keep_pixel_statistics,
    )

    if isinstance(value, dict):
        value = dict(value)
        keep_pixel_statistics(value)
        return {
            key: without_weights(part)
            for key, part in value.items()
            if key not in _WEIGHTS
        }
    if isinstance(value, list | tuple):
        return type(value)(without_weights(part) for part in value)
    return value


def from_plain(value: Any) -> Any:
    """Turn what :func:`to_plain` made into settings, and check it.

    An index may come from anywhere. MMEngine imports a ``type`` that it does
    not know, and a ``_scope_``; so only names that are registered are taken,
    and nothing that asks for a network.

    Raises:
        VideoIndexError: If it asks for anything else.
    """
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    if isinstance(value, str) and ('://' in value or 'hf-hub:' in value):
        raise _refusal(f"'{value[:80]}'", 'lies on a network')
    if not isinstance(value, dict):
        return value
    if set(value) == {TUPLE}:
        return tuple(from_plain(part) for part in value[TUPLE])
    if '_scope_' in value:
        raise _refusal("a '_scope_'", 'would be imported')
    kind = value.get('type')
    if kind is not None and not _is_registered(kind):
        raise _refusal(
            f"'{str(kind)[:80]}'",
            'is not registered here and would be imported',
        )
    return {key: from_plain(part) for key, part in value.items()}


def _refusal(what: str, why: str) -> VideoIndexError:
    return VideoIndexError(
        f'The config stored in the index asks for {what}, which {why}. Give '
        'the config of the model (--config) if you trust it.'
    )


def _is_registered(kind: Any) -> bool:
    """Whether a registry has a name, without asking it to import it."""
    if not isinstance(kind, str) or not kind:
        return False
    # looked up by these libraries among their own models
    if kind.startswith(('timm.', 'open_clip.')) or kind == 'open_clip':
        return True
    scope, _, name = kind.rpartition('.')
    if scope in _LIBRARIES:
        try:
            own = importlib.import_module(f'{scope}.registry')
        except ImportError:
            return False
        known = [own.MODELS, own.TRANSFORMS]
    elif scope in ('', SCOPE, 'mmengine', 'mmcv'):
        known = [MODELS, TRANSFORMS, TOKENIZERS]
    else:
        return False
    for registry in known:
        registry.import_from_location()
    if scope not in _LIBRARIES:  # those of MMEngine are above ours
        known += [x.parent for x in known if x.parent is not None]
    return any(name in registry.module_dict for registry in known)
