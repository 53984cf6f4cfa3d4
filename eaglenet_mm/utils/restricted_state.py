"""Which state a pickle may give to which object, for safe checkpoints.

Setting state is a door of its own: numpy types carry flags that C code
believes, and a history buffer carries functions. So every state is compared
with what the library itself would have written.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

_BUFFER_FIELDS = {
    '_log_history': np.ndarray,
    '_count_history': np.ndarray,
    'max_length': int,
    '_max_length': int,
    'statistics_methods': dict,
}


def statistics_methods() -> dict[str, Callable]:
    """Collect the statistics that a ``HistoryBuffer`` has in this process.

    Returns:
        dict[str, Callable]: Name to function: MMEngine's four and those
        registered with ``HistoryBuffer.register_statistics``.
    """
    return {
        'min': HistoryBuffer.min,
        'max': HistoryBuffer.max,
        'current': HistoryBuffer.current,
        'mean': HistoryBuffer.mean,
        **HistoryBuffer._statistics_methods,
    }


def validated_state(target: Any, state: Any) -> Any:
    """Check that a pickle may give this state to this object.

    Args:
        target (Any): The object whose state would be set.
        state (Any): What the pickle gives.

    Returns:
        Any: The state to set.

    Raises:
        ValueError: If the object is of another kind than history buffers,
            numpy arrays, numpy types and ordered dicts, or if the state is
            not one which its library writes.
    """
    if type(target) is HistoryBuffer:
        return _validated_buffer(state)
    if type(target) is OrderedDict:
        if not isinstance(state, dict) or set(state) != {'_metadata'}:
            raise ValueError('attributes other than _metadata')
        return state
    if isinstance(target, np.dtype):
        genuine = target.newbyteorder(state[1]).__reduce__()[2]
        if tuple(state) != genuine:
            raise ValueError('a numpy type with unusual fields or flags')
        return state
    if type(target) is np.ndarray:
        if len(state) != 5 or getattr(state[2], 'hasobject', True):
            raise ValueError('a numpy array of objects')
        return state
    raise ValueError('setting the state of this kind of object')


def _validated_buffer(state: Any) -> dict[str, Any]:
    """Check the fields of a history buffer and the functions it brings."""
    if not isinstance(state, dict):
        raise ValueError('a history buffer without fields')
    for name, value in state.items():
        if not isinstance(value, _BUFFER_FIELDS.get(name, ())):
            raise ValueError(f'the field {name!r} of a history buffer')
    known = statistics_methods()
    for name, method in state.get('statistics_methods', {}).items():
        if known.get(name) is not method:
            raise ValueError(f'the unknown statistics method {name!r}')
    return state
