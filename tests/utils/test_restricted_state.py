"""Which state may be set on which object."""

from collections import OrderedDict

import numpy as np
import pytest
from mmengine.logging import HistoryBuffer

from eaglenet_mm.utils.restricted_state import (
    statistics_methods,
    validated_state,
)


def test_statistics_are_known_before_the_first_buffer(monkeypatch):
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})
    assert set(statistics_methods()) == {'min', 'max', 'current', 'mean'}


def test_registered_statistics_are_known(monkeypatch):
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {'own': len})
    assert statistics_methods()['own'] is len


@pytest.mark.parametrize('dtype', ['f4', '>i2', 'U3', 'S4', '?', 'c8'])
def test_the_state_numpy_writes_is_passed_on(dtype):
    dtype = np.dtype(dtype)
    reduced = dtype.__reduce__()
    fresh = reduced[0](*reduced[1])
    assert validated_state(fresh, reduced[2]) == reduced[2]
    state = np.zeros(2, dtype).__reduce__()[2]
    assert validated_state(np.zeros(2, dtype), state) is state


def test_state_of_a_buffer_and_a_state_dict():
    state = HistoryBuffer([1.0], [1]).__getstate__()
    assert validated_state(HistoryBuffer(), state) is state
    metadata = {'_metadata': OrderedDict()}
    assert validated_state(OrderedDict(), metadata) is metadata


@pytest.mark.parametrize(
    ('target', 'state', 'match'),
    [
        (HistoryBuffer(), None, 'without fields'),
        (HistoryBuffer(), {'max_length': 'x'}, "'max_length'"),
        (
            HistoryBuffer(),
            {'statistics_methods': {'mean': print}},
            "statistics method 'mean'",
        ),
        (OrderedDict(), {'items': 1}, 'other than _metadata'),
        (OrderedDict(), [], 'other than _metadata'),
        (
            np.dtype('f8', copy=True),
            (3, '<', None, None, None, 8, 8, 63),
            'unusual fields or flags',
        ),
        (
            np.zeros(1),
            (1, (1,), np.dtype(object), False, [print]),
            'array of objects',
        ),
        (np.zeros(1), (1, (1,), None, False, b''), 'array of objects'),
        (object(), {}, 'this kind of object'),
        (HistoryBuffer, {}, 'this kind of object'),
        (print, {}, 'this kind of object'),
    ],
)
def test_refused_states(target, state, match):
    with pytest.raises(ValueError, match=match):
        validated_state(target, state)
