"""A pickle reader for checkpoints that calls nothing but its own list.

It has the interface that ``torch.load(pickle_module=...)`` asks for: the
module itself is passed, and torch uses its :class:`Unpickler` and
:func:`load`. The reader is built on the Python unpickler of the standard
library, whose single operations can be overridden; tensors lie outside of
the pickle, so its speed does not matter.

What a pickle may do here:

* name globals of :data:`CALLABLES` and :data:`ARGUMENTS`, nothing else;
* call those of :data:`CALLABLES`, several of them replaced by a narrow
  version (``getattr`` only finds the statistics of a ``HistoryBuffer``);
* set the state of history buffers, numpy arrays and numpy data types, and
  the ``_metadata`` of a state dict, checked by kind. The state of a class,
  a function or anything else cannot be set.
"""

import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from eaglenet_mm.utils.restricted_state import (
    statistics_methods,
    validated_state,
)


class ForbiddenGlobalError(pickle.UnpicklingError):
    """A pickle asks for something outside of the allow-list.

    Args:
        name (str): What it asks for, as ``module.name``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f'The pickle asks for {name!r}')
        self.name = name


def _getattr(owner: Any, name: str) -> Callable:
    """Find a statistics method of ``HistoryBuffer``, and only that."""
    if owner is not HistoryBuffer or name not in statistics_methods():
        owner_name = getattr(owner, '__name__', type(owner).__name__)
        raise ForbiddenGlobalError(f'getattr({owner_name}, {name!r})')
    return statistics_methods()[name]


def _dtype(spec: str, *flags: Any) -> np.dtype:
    """Make an own copy of a plain numpy type; none that holds objects."""
    del flags  # alignment and copying, which numpy writes and we decide
    dtype = np.dtype(spec, copy=True) if isinstance(spec, str) else None
    if dtype is None or dtype.hasobject or dtype.fields:
        raise ForbiddenGlobalError(f'numpy.dtype({spec!r})')
    return dtype


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Undo how old pickle protocols write bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise ForbiddenGlobalError(f'_codecs.encode(..., {encoding!r})')
    return text.encode('latin1')


def _numpy_function(module: str, name: str) -> Callable:
    """Find a private numpy function under the name of numpy 1 or 2."""
    root = getattr(np, '_core', None) or np.core
    return getattr(getattr(root, module), name)


#: Globals a pickle may name and call, with what it gets for them.
CALLABLES: dict[str, Callable] = {
    'builtins.getattr': _getattr,
    'builtins.set': set,
    'builtins.frozenset': frozenset,
    'builtins.bytearray': bytearray,
    'builtins.complex': complex,
    '_codecs.encode': _encode,
    'collections.OrderedDict': OrderedDict,
    'collections.Counter': Counter,
    'numpy.dtype': _dtype,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    'torch._utils._rebuild_tensor': torch._utils._rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    **{
        f'numpy.{core}.{module}.{name}': _numpy_function(module, name)
        for core in ('core', '_core')
        for module, name in (
            ('multiarray', '_reconstruct'),
            ('multiarray', 'scalar'),
            ('numeric', '_frombuffer'),
        )
    },
}

#: Globals a pickle may only hand to those callables.
ARGUMENTS: dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'numpy.ndarray': np.ndarray,
    'torch.storage.UntypedStorage': torch.UntypedStorage,
    **{
        f'torch.{name}': value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype)
    },
}


#: The Python version of ``pickle.Unpickler``; the stubs know the C one only.
_PythonUnpickler: Any = pickle._Unpickler


class Unpickler(_PythonUnpickler):
    """Read one pickle with the allow-list of this module.

    Args:
        file (IO[bytes]): Where the pickle starts.
        **kwargs: Options of :class:`pickle.Unpickler`.

    Raises:
        ForbiddenGlobalError: If the pickle names or calls anything else.
    """

    dispatch: ClassVar[dict[int, Callable]] = dict(_PythonUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up in the list instead of importing it."""
        module = {'__builtin__': 'builtins'}.get(module, module)
        full_name = f'{module}.{name}'
        for allowed in (CALLABLES, ARGUMENTS):
            if full_name in allowed:
                return allowed[full_name]
        for method in statistics_methods().values():
            if full_name == f'{method.__module__}.{method.__qualname__}':
                return method
        raise ForbiddenGlobalError(full_name)

    def get_extension(self, code: int) -> None:
        """Refuse the numbered globals of :mod:`copyreg`."""
        raise ForbiddenGlobalError(f'copyreg extension {code}')

    def load_reduce(self) -> None:
        """Call a function of the list, never one found another way."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is known for known in CALLABLES.values()):
            raise ForbiddenGlobalError(f'a call of {_describe(function)}')
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        """Create an empty history buffer; nothing else is made so."""
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if kind is not HistoryBuffer or arguments:
            raise ForbiddenGlobalError(f'a new {_describe(kind)}')
        self.append(HistoryBuffer.__new__(HistoryBuffer))

    def refuse_opcode(self) -> None:
        """Refuse old ways to make objects, which torch does not write."""
        raise ForbiddenGlobalError('the operation INST, OBJ or NEWOBJ_EX')

    def load_build(self) -> None:
        """Set the state of the few kinds of objects that have one."""
        state = self.stack.pop()
        target = self.stack[-1]
        try:
            state = validated_state(target, state)
        except ValueError as err:
            raise ForbiddenGlobalError(f'{_describe(target)}: {err}') from err
        if isinstance(target, OrderedDict):
            target.__dict__.update(state)
        else:
            target.__setstate__(state)

    def load_binpersid(self) -> None:
        """Resolve a reference to a storage; modules are refused."""
        reference = self.stack[-1]
        if reference[0] not in ('storage', b'storage'):
            raise ForbiddenGlobalError(f'a pickled {reference[0]!r}')
        super().load_binpersid()

    dispatch.update(
        {
            pickle.REDUCE[0]: load_reduce,
            pickle.NEWOBJ[0]: load_newobj,
            pickle.BUILD[0]: load_build,
            pickle.BINPERSID[0]: load_binpersid,
            pickle.INST[0]: refuse_opcode,
            pickle.OBJ[0]: refuse_opcode,
            pickle.NEWOBJ_EX[0]: refuse_opcode,
            pickle.PERSID[0]: refuse_opcode,
        }
    )


def load(file: IO[bytes], **kwargs: Any) -> Any:
    """Read one object with :class:`Unpickler`, as :func:`pickle.load`.

    Args:
        file (IO[bytes]): Where the pickle starts; it is read to its end only.
        **kwargs: Options of :class:`pickle.Unpickler`.

    Returns:
        Any: The object.

    Raises:
        ForbiddenGlobalError: If the pickle asks for more than the list.
    """
    return Unpickler(file, **kwargs).load()


def _describe(value: Any) -> str:
    """Name a class or function, or the kind of any other value."""
    name = getattr(value, '__qualname__', None)
    if not isinstance(name, str):
        return f'an object of type {type(value).__name__}'
    return f'{getattr(value, "__module__", "?")}.{name}'
