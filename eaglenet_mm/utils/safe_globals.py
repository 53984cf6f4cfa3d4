"""Objects besides tensors in MMEngine's checkpoints, for ``weights_only``.

``torch.load(weights_only=True)`` reads tensors and containers. MMEngine also
saves history buffers and numpy arrays, which are unsafe to unpickle: numpy
trusts the flags of a pickled dtype, and a history buffer contains functions.
Their names are therefore mapped to stand-ins, which accept plain data only and
are replaced by real objects afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import serialization

_BUFFER_FIELDS = {
    '_log_history': np.ndarray,
    '_count_history': np.ndarray,
    'max_length': int,
    '_max_length': int,
    'statistics_methods': dict,
}


class _StandIn:
    """Receiver of the state of an object, which is ``value``."""

    value: Any = None


class _Type(_StandIn):
    """Plain numpy dtype: numbers, booleans or text, in any byte order."""

    def __init__(self, spec: str, *_: Any) -> None:
        self.value = np.dtype(spec) if isinstance(spec, str) else None
        if self.value is None or self.value.kind not in 'biufcUS':
            raise UnpicklingError(f'the numpy type {spec!r}')

    def __setstate__(self, state: tuple) -> None:
        expected = self.value.newbyteorder(state[1])
        if state != expected.__reduce__()[2]:
            raise UnpicklingError('a numpy type with unusual fields or flags')
        self.value = expected


class _Array(_StandIn):
    """Numpy array, built from its bytes."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        array = np.frombuffer(data, _dtype_of(kind), math.prod(shape))
        order: Any = 'F' if is_fortran else 'C'
        self.value = array.reshape(shape, order=order).copy(order)


class _Buffer(_StandIn):
    """History buffer with the statistics of this process."""

    def __setstate__(self, state: dict) -> None:
        fields = real_objects(state)
        for name, value in fields.items():
            if not isinstance(value, _BUFFER_FIELDS.get(name, ())):
                raise UnpicklingError(
                    f'the field {name!r} of a history buffer'
                )
        del fields['statistics_methods']
        self.value = HistoryBuffer()
        self.value.__dict__.update(fields)


def _dtype_of(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type):
        raise UnpicklingError(f'a numpy array of {kind!r}')
    return kind.value


def _reconstruct(kind: Any, *_: Any) -> _Array:
    """Begin an array; ``_Array.__setstate__`` fills it."""
    if kind is not _Array:
        raise UnpicklingError('an array of another class than numpy.ndarray')
    return _Array()


def _scalar(kind: Any, data: bytes) -> np.generic:
    return np.frombuffer(data, _dtype_of(kind), 1)[0]


def _statistic(*_: Any) -> None:
    """Placeholder of a statistics method, which must not be called."""
    raise UnpicklingError('a call of a statistics method')


def _getattr(owner: Any, name: str) -> Callable:
    """Resolve statistics methods of ``HistoryBuffer``, and nothing else."""
    known = {'min', 'max', 'current', 'mean', *_registered()}
    if owner is not _Buffer or name not in known:
        raise UnpicklingError(f'getattr({owner!r}, {name!r})')
    return _statistic


def _empty_bytes() -> bytes:
    """Only use of ``bytes`` in the second pickle protocol."""
    return b''


def _registered() -> dict[str, Callable]:
    return HistoryBuffer._statistics_methods


@contextmanager
def allowed_in_checkpoints() -> Iterator[None]:
    """Allow what MMEngine saves while ``torch.load`` reads weights only."""
    named: dict[str, Callable] = {
        'builtins.bytes': _empty_bytes,
        'builtins.frozenset': frozenset,
        'builtins.getattr': _getattr,
        'mmengine.logging.history_buffer.HistoryBuffer': _Buffer,
        'numpy.dtype': _Type,
        'numpy.ndarray': _Array,
    }
    for core in ('numpy.core', 'numpy._core'):  # numpy 1 and 2
        named[f'{core}.multiarray._reconstruct'] = _reconstruct
        named[f'{core}.multiarray.scalar'] = _scalar
    for method in _registered().values():
        named.setdefault(_name_of(method), _statistic)
    before = serialization.get_safe_globals()
    # keep what others allow, but let our stand-ins take precedence
    others = [entry for entry in before if _name_of(entry) not in named]
    serialization.clear_safe_globals()
    try:
        ours = [(value, name) for name, value in named.items()]
        serialization.add_safe_globals([*others, *ours])
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _name_of(entry: Any) -> str:
    """Name in a pickle of an allowed object."""
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


def real_objects(value: Any) -> Any:
    """Replace the stand-ins in the result of ``torch.load``."""
    if isinstance(value, _StandIn):
        return value.value
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = real_objects(part)
    elif isinstance(value, list):
        value[:] = map(real_objects, value)
    elif type(value) is tuple:
        return tuple(map(real_objects, value))
    return value
