"""Tensors of a TorchScript archive, read without running its code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

STORAGE_DTYPES = {
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'DoubleStorage': torch.float64,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}


class _Inert:
    """Stands for any object of the archive; keeps its state, does nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what the archive gives to a class or function."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Take an item of a typed list, and forget it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an entry of a typed dict, and forget it."""


def _keep_value(value: Any, type_name: str) -> Any:
    """Leave a container as it is; its type tag says nothing to us."""
    return value


class _TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors; every other global becomes :class:`_Inert`."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}
        super().__init__(archive.open(f'{root}/data.pkl'))

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; nothing is imported, so nothing can run."""
        if module == 'torch._utils' and name == '_rebuild_tensor_v2':
            return self._rebuild_tensor
        if module == 'torch' and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if module == 'collections' and name == 'OrderedDict':
            return OrderedDict
        if module == 'torch.jit._pickle' and name == 'restore_type_tag':
            return _keep_value
        return _Inert

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the storage of a tensor as a flat tensor."""
        _, dtype, key, *_ = pid
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f'storage {key} of an unknown type')
        if key not in self._storages:
            record = self._archive.read(f'{self._root}/data/{key}')
            self._storages[key] = (
                torch.frombuffer(bytearray(record), dtype=dtype)
                if record
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]

    @staticmethod
    def _rebuild_tensor(
        storage: Tensor,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: Any,
    ) -> Tensor:
        return storage.as_strided(size, stride, offset).clone()


def is_torchscript_archive(path: str) -> bool:
    """Say whether a file is a TorchScript archive rather than a checkpoint."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            name.endswith('/constants.pkl') for name in archive.namelist()
        )


def read_torchscript_tensors(path: str) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive, as OpenAI publishes CLIP.

    ``torch.jit.load`` would compile the archive's code and run its
    ``__setstate__`` methods. Here the archive is taken for what we need of
    it: a zip file with a pickle that names raw storages. The pickle's
    globals are replaced by inert stand-ins, so a manipulated file can give
    wrong numbers but cannot run anything.

    Args:
        path (str): The archive.

    Returns:
        dict[str, Tensor]: Parameters, buffers and other tensor attributes by
        their dotted names, on the CPU, in the precision of the file.

    Raises:
        ValueError: If the archive is damaged or of another build.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(
                name.rsplit('/', 1)[0]
                for name in archive.namelist()
                if name.endswith('/constants.pkl')
            )
            module = _TensorUnpickler(archive, root).load()
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        RuntimeError,
        StopIteration,
        TypeError,
        ValueError,
    ) as err:
        raise ValueError(
            f"'{path}' looks like a TorchScript archive, but its tensors "
            f'cannot be read: {err}. Fetch the file again, or save its state '
            'dict with torch.save and give that file.'
        ) from err
    tensors: dict[str, Tensor] = {}
    _collect(module, '', tensors, set())
    return tensors


def _collect(
    node: Any, prefix: str, tensors: dict[str, Tensor], path: set[int]
) -> None:
    """Walk the attributes of the modules and note every tensor."""
    if not isinstance(node, _Inert) or not isinstance(node.state, dict):
        return
    if id(node) in path:
        return
    path = path | {id(node)}
    for name, value in node.state.items():
        if isinstance(value, Tensor):
            tensors[f'{prefix}{name}'] = value
        else:
            _collect(value, f'{prefix}{name}.', tensors, path)
