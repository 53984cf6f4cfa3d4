"""What a checkpoint may hold, and that nothing else is ever called."""

import os
import pickle
import sys
import zipfile
from collections import Counter, OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from eaglenet_mm.utils import UnsafeCheckpointError, load_checkpoint_file


@pytest.fixture
def read(tmp_path):
    """Read a pickle as that of a checkpoint."""

    def read_pickle(data):
        path = tmp_path / 'checkpoint.pth'
        torch.save(None, path)
        with zipfile.ZipFile(path) as archive:
            parts = {x: archive.read(x) for x in archive.namelist()}
        with zipfile.ZipFile(path, 'w') as archive:
            for name, content in parts.items():
                of_pickle = name.endswith('data.pkl')
                archive.writestr(name, data if of_pickle else content)
        return load_checkpoint_file(path)

    return read_pickle


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
def test_reads_the_allowed_values(read, value):
    result = read(pickle.dumps(value, 2))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize('dtype', ['<f8', '>f4', '<i8', '|b1', '<U5', '|u1'])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_reads_arrays_of_every_plain_type(read, dtype, order):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype, order=order)
    result = read(pickle.dumps(array, 2))
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert result.flags.writeable


def test_reads_an_empty_history_buffer(read):
    result = read(pickle.dumps(HistoryBuffer(), 2))
    result.update(2.0)
    assert result.mean() == 2.0


@pytest.mark.parametrize('name', ['numpy.core', 'numpy._core'])
def test_reads_scalars_of_either_numpy(read, name):
    dtype = pickle.dumps(np.dtype('f8'), 2)[2:-1]
    data = np.float64(1.5).tobytes().decode('latin1')
    encoded = glob('_codecs.encode') + text(data) + text('latin1') + b'\x86R'
    scalar = glob(f'{name}.multiarray.scalar')
    assert read(scalar + dtype + encoded + b'\x86R.') == 1.5


def test_reads_history_buffers_with_their_statistics(read):
    buffer = HistoryBuffer([1.0, 2.0, 3.0], [1, 1, 1])
    result = read(pickle.dumps(buffer, 2))
    assert isinstance(result, HistoryBuffer)
    assert result.statistics('mean') == 2.0
    assert result.current() == 3.0


def spread(buffer):
    return buffer._log_history.max() - buffer._log_history.min()


def test_reads_statistics_registered_in_this_process(read, monkeypatch):
    methods = {'spread': spread}
    monkeypatch.setattr(spread, '__module__', 'my_project')
    module = SimpleNamespace(spread=spread)
    monkeypatch.setitem(sys.modules, 'my_project', module)
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', methods)
    data = pickle.dumps(HistoryBuffer([1.0, 4.0], [1, 1]), 2)
    assert read(data).statistics('spread') == 3.0
    methods.clear()
    with pytest.raises(UnsafeCheckpointError, match=r'my_project\.spread'):
        read(data)


@pytest.mark.parametrize(
    'function', [os.system, eval, __import__, open, torch.hub.load]
)
def test_refuses_functions_and_does_not_call_them(read, function, tmp_path):
    marker = tmp_path / 'called'
    data = pickle.dumps(Calls(function, f'touch {marker}'), 2)
    with pytest.raises(UnsafeCheckpointError, match=function.__name__):
        read(data)
    assert not marker.exists()


@pytest.mark.parametrize(
    'name',
    [
        'torch.storage._load_from_bytes',
        'torch._utils._rebuild_tensor_v2.__globals__',
        'torch.nn.modules.linear.Linear',
        'functools.partial',
        'copyreg._reconstructor',
        'mmengine.config.Config',
        'mmengine.logging.history_buffer.np',
    ],
)
def test_names_the_refused_global(read, name):
    with pytest.raises(UnsafeCheckpointError) as info:
        read(glob(name) + b'.')
    assert info.value.name == name


@pytest.mark.parametrize(
    ('owner', 'attribute'),
    [
        (BUFFER, '__init__'),
        (BUFFER, 'register_statistics'),
        (glob('collections.OrderedDict'), 'mean'),
        (GETATTR, '__globals__'),
        (text('word'), 'format'),
    ],
)
def test_getattr_finds_statistics_only(read, owner, attribute):
    with pytest.raises(UnsafeCheckpointError, match=f"'{attribute}'"):
        read(GETATTR + owner + text(attribute) + b'\x86R.')


def test_results_of_getattr_cannot_be_called(read):
    mean = GETATTR + BUFFER + text('mean') + b'\x86R'
    with pytest.raises(UnsafeCheckpointError, match='statistics method'):
        read(mean + b'K\x01\x85R.')


@pytest.mark.parametrize(
    'target',
    [BUFFER, GETATTR, *map(glob, ['collections.OrderedDict', 'numpy.dtype'])],
)
def test_the_state_of_classes_and_functions_cannot_be_set(read, target):
    state = b'}' + text('mean') + b'K\x01s'
    with pytest.raises(UnsafeCheckpointError):
        read(target + state + b'b.')
    assert callable(HistoryBuffer.mean)


@pytest.mark.parametrize('field', ['anything', '_log_history'])
def test_history_buffers_take_only_their_fields(read, field):
    data = BUFFER + b')\x81}' + text(field) + b'K\x01sb.'
    with pytest.raises(UnsafeCheckpointError, match=f"'{field}'"):
        read(data)


def test_a_file_cannot_replace_the_statistics_of_this_process(read):
    data = pickle.dumps(HistoryBuffer([1.0], [1]), 2)
    mean = HistoryBuffer._statistics_methods['mean']
    assert data.count(text('mean')) == 2  # its name, and that of getattr
    read(data.replace(text('mean'), text('minx')[:5] + b'max!', 1))
    assert HistoryBuffer._statistics_methods['mean'] is mean


def test_state_dicts_keep_their_metadata(read):
    weights = OrderedDict(a=1)
    weights._metadata = OrderedDict(version=1)
    assert read(pickle.dumps(weights, 2))._metadata == {'version': 1}


@pytest.mark.parametrize(
    'array',
    [
        np.array([{}, []], dtype=object),
        np.zeros(2, dtype=[('a', 'f4')]),
        np.array(['2020-01-01'], dtype='M8[D]'),
    ],
    ids=['objects', 'structured', 'dates'],
)
def test_refuses_arrays_of_other_types(read, array):
    with pytest.raises(UnsafeCheckpointError, match='the numpy type'):
        read(pickle.dumps(array, 2))


def test_refuses_forged_flags_of_a_numpy_type(read):
    forged = (3, '<', None, None, None, -1, -1, 63)
    dtype = glob('numpy.dtype') + text('f8') + b'\x85R'
    state = pickle.dumps(forged, 2)[2:-1]
    with pytest.raises(UnsafeCheckpointError, match='unusual fields or flags'):
        read(dtype + state + b'b.')


def test_an_array_takes_no_other_type(read):
    begin = glob('numpy._core.multiarray._reconstruct')
    begin += glob('numpy.ndarray') + b'K\x00\x85\x87R'
    begin = begin.replace(b'K\x00\x85\x87', b'K\x00\x85K\x00\x87')
    state = b'(K\x01K\x01\x85' + glob('torch.float32') + b'\x89U\x00tb.'
    with pytest.raises(UnsafeCheckpointError, match='numpy array of'):
        read(begin + state)


@pytest.mark.parametrize(
    'data',
    [
        b'(imengine\nthing\n.',
        b'(' + BUFFER + b'o.',
        BUFFER + b')}\x92.',
        b'Pname\n.',
        b'\x82\xf0.',
        pickle.dumps({'a': 1}, 4),
    ],
    ids=['inst', 'obj', 'newobj_ex', 'persid', 'extension', 'protocol'],
)
def test_refuses_operations_of_other_protocols(read, data):
    with pytest.raises(UnsafeCheckpointError, match='pickle_protocol'):
        read(data)


def test_what_others_allow_stays_and_does_not_replace_ours(read):
    numpy = [np.ndarray, np.dtype, Calls]
    # torch keeps a set: with many, one of them would come first
    numpy += [(lambda n=n: n, 'numpy.ndarray') for n in range(20)]
    with torch.serialization.safe_globals(numpy):
        before = set(torch.serialization.get_safe_globals())
        array = read(pickle.dumps(np.ones(2), 2))
        assert set(torch.serialization.get_safe_globals()) == before
    assert array.tolist() == [1.0, 1.0]
