"""The pickle reader: what it makes, and that nothing else is ever called."""

import copyreg
import io
import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from eaglenet_mm.utils import restricted_unpickler
from eaglenet_mm.utils.restricted_unpickler import (
    CALLABLES,
    ForbiddenGlobalError,
)


def read(data):
    return restricted_unpickler.load(io.BytesIO(data))


def glob(name):
    """Write the operation that pushes a global."""
    module, _, attribute = name.rpartition('.')
    return f'c{module}\n{attribute}\n'.encode()


def text(value):
    data = value.encode()
    return b'X' + len(data).to_bytes(4, 'little') + data


BUFFER = glob('mmengine.logging.history_buffer.HistoryBuffer')
GETATTR = glob('__builtin__.getattr')


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize(
    'value',
    [
        {'a': [1, 2.5, None, True], 'b': ('x', b'bytes')},
        OrderedDict(a=1),
        Counter({3: 1, 8: 2}),
        {1, 2},
        frozenset({'x'}),
        complex(1, 2),
        torch.Size([2, 3]),
        torch.float32,
        np.float64(2.5),
        np.int64(7),
        np.str_('word'),
    ],
    ids=repr,
)
def test_reads_the_allowed_values(value, protocol):
    result = read(pickle.dumps(value, protocol))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('dtype', ['<f8', '>f4', '<i8', '|b1', '<U5', '|u1'])
def test_reads_arrays_of_every_plain_type(dtype, protocol):
    array = np.ones((2, 3)).astype(dtype)
    result = read(pickle.dumps(array, protocol))
    np.testing.assert_array_equal(result, array)
    assert result.dtype.kind == array.dtype.kind


@pytest.mark.parametrize('name', ['numpy.core', 'numpy._core'])
def test_reads_scalars_of_either_numpy(name):
    dtype = pickle.dumps(np.dtype('f8'), 2)[2:-1]
    data = np.float64(1.5).tobytes().decode('latin1')
    encoded = glob('_codecs.encode') + text(data) + text('latin1') + b'\x86R'
    scalar = glob(f'{name}.multiarray.scalar')
    assert read(scalar + dtype + encoded + b'\x86R.') == 1.5


def test_dtypes_are_copies_so_that_state_cannot_leak():
    read(pickle.dumps(np.dtype('>f8')))
    assert np.dtype('f8').isnative


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_reads_history_buffers_with_their_statistics(protocol):
    buffer = HistoryBuffer([1.0, 2.0, 3.0], [1, 1, 1])
    result = read(pickle.dumps(buffer, protocol))
    assert isinstance(result, HistoryBuffer)
    assert result.statistics('mean') == 2.0
    assert result.current() == 3.0


def registered_spread(buffer):
    return buffer._log_history.max() - buffer._log_history.min()


@pytest.fixture
def spread(monkeypatch):
    methods = {'spread': registered_spread}
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', methods)
    monkeypatch.setattr(registered_spread, '__module__', 'my_project')
    return methods


def test_reads_statistics_registered_in_this_process(spread):
    assert (
        read(glob('my_project.registered_spread') + b'.') is spread['spread']
    )


def test_refuses_the_same_statistics_when_not_registered():
    with pytest.raises(ForbiddenGlobalError, match='registered_spread'):
        read(glob('my_project.registered_spread') + b'.')


@pytest.mark.parametrize(
    'function',
    [os.system, eval, exec, __import__, open, torch.hub.load, torch.load],
)
def test_refuses_functions_and_does_not_call_them(function, tmp_path):
    marker = tmp_path / 'called'
    data = pickle.dumps(Calls(function, f'touch {marker}'), 2)
    with pytest.raises(ForbiddenGlobalError, match=function.__name__):
        read(data)
    assert not marker.exists()


@pytest.mark.parametrize(
    'name',
    [
        'builtins.eval',
        'torch.storage._load_from_bytes',
        'torch._utils._rebuild_tensor_v2.__globals__',
        'torch.nn.modules.linear.Linear',
        'functools.partial',
        'operator.attrgetter',
        'copyreg._reconstructor',
        'mmengine.config.Config',
        'mmengine.logging.history_buffer.np',
    ],
)
def test_names_the_refused_global(name):
    with pytest.raises(ForbiddenGlobalError) as info:
        read(glob(name) + b'.')
    assert info.value.name == name


@pytest.mark.parametrize('attribute', ['mean', 'min', 'max', 'current'])
def test_getattr_finds_the_statistics(attribute):
    data = GETATTR + BUFFER + text(attribute) + b'\x86R.'
    assert read(data) is getattr(HistoryBuffer, attribute)


@pytest.mark.parametrize(
    ('owner', 'attribute'),
    [
        (BUFFER, '__init__'),
        (BUFFER, '__subclasses__'),
        (BUFFER, 'register_statistics'),
        (glob('collections.OrderedDict'), 'mean'),
        (GETATTR, '__globals__'),
        (text('word'), 'format'),
    ],
)
def test_getattr_finds_nothing_else(owner, attribute):
    with pytest.raises(ForbiddenGlobalError, match=f"'{attribute}'"):
        read(GETATTR + owner + text(attribute) + b'\x86R.')


def test_results_of_getattr_cannot_be_called():
    mean = GETATTR + BUFFER + text('mean') + b'\x86R'
    with pytest.raises(ForbiddenGlobalError, match=r'HistoryBuffer\.mean'):
        read(mean + b'K\x01\x85R.')


@pytest.mark.parametrize('name', ['numpy.ndarray', 'torch.float32'])
def test_arguments_cannot_be_called(name):
    with pytest.raises(ForbiddenGlobalError, match='a call of'):
        read(glob(name) + b'K\x01\x85R.')


@pytest.mark.parametrize(
    'target', [BUFFER, *map(glob, ['collections.OrderedDict', *CALLABLES])]
)
def test_the_state_of_classes_and_functions_cannot_be_set(target):
    state = b'}' + text('mean') + b'K\x01s'
    with pytest.raises(ForbiddenGlobalError):
        read(target + state + b'b.')
    with pytest.raises(ForbiddenGlobalError):
        read(target + b'N' + state + b'\x86b.')
    assert callable(HistoryBuffer.mean)


@pytest.mark.parametrize(
    ('fields', 'match'),
    [
        (text('anything') + b'K\x01s', "field 'anything'"),
        (text('_log_history') + b'K\x01s', "field '_log_history'"),
        (
            text('statistics_methods') + b'}' + text('mean') + b'K\x01ss',
            "statistics method 'mean'",
        ),
    ],
)
def test_history_buffers_take_only_their_fields(fields, match):
    with pytest.raises(ForbiddenGlobalError, match=match):
        read(BUFFER + b')\x81}' + fields + b'b.')
    assert HistoryBuffer([1.0], [1]).mean() == 1.0


def test_history_buffers_need_a_dict():
    with pytest.raises(ForbiddenGlobalError, match='without fields'):
        read(BUFFER + b')\x81K\x01b.')


def test_state_dicts_keep_their_metadata_and_no_other_attribute():
    weights = OrderedDict(a=1)
    weights._metadata = OrderedDict(version=1)
    assert read(pickle.dumps(weights, 2))._metadata == {'version': 1}
    weights.note = 'anything'
    with pytest.raises(ForbiddenGlobalError, match='other than _metadata'):
        read(pickle.dumps(weights, 2))


def test_refuses_arrays_of_objects():
    with pytest.raises(ForbiddenGlobalError, match=r"numpy.dtype\('O8'\)"):
        read(pickle.dumps(np.array([{}, []], dtype=object), 2))


def test_refuses_structured_types():
    array = np.zeros(2, dtype=[('a', 'f4')])
    with pytest.raises(ForbiddenGlobalError, match='unusual fields'):
        read(pickle.dumps(array, 2))


def test_refuses_forged_flags_of_a_numpy_type():
    forged = (3, '<', None, None, None, -1, -1, 63)
    dtype = glob('numpy.dtype') + text('f8') + b'\x85R'
    state = pickle.dumps(forged, 2)[2:-1]
    with pytest.raises(ForbiddenGlobalError, match='unusual fields or flags'):
        read(dtype + state + b'b.')


def test_refuses_other_encodings():
    data = glob('_codecs.encode') + text('x') + text('zlib') + b'\x86R.'
    with pytest.raises(ForbiddenGlobalError, match="'zlib'"):
        read(data)


def test_refuses_new_objects_of_other_classes():
    with pytest.raises(ForbiddenGlobalError, match=r'a new .*OrderedDict'):
        read(glob('collections.OrderedDict') + b')\x81.')


@pytest.mark.parametrize(
    'data',
    [
        b'(imengine\nthing\n.',
        b'(' + BUFFER + b'o.',
        BUFFER + b')}\x92.',
        b'Pname\n.',
    ],
    ids=['inst', 'obj', 'newobj_ex', 'persid'],
)
def test_refuses_old_ways_to_make_objects(data):
    with pytest.raises(ForbiddenGlobalError, match='operation'):
        read(data)


def test_refuses_extension_codes():
    copyreg.add_extension('os', 'system', 240)
    try:
        with pytest.raises(ForbiddenGlobalError, match='extension 240'):
            read(b'\x82\xf0.')
    finally:
        copyreg.remove_extension('os', 'system', 240)


def test_refuses_references_to_modules():
    with pytest.raises(ForbiddenGlobalError, match="pickled 'module'"):
        read(b'(' + text('module') + BUFFER + b'NNtQ.')
