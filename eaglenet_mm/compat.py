"""Workarounds for defects of dependencies, each with its cause and its end.

This is the only module that changes other packages. Every workaround checks
for its defect first and leaves a healthy installation alone, so it ends by
itself once the defect is fixed upstream.
"""

import importlib.metadata
import os.path as osp
import re
import sys
import types
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

_VINDLU = osp.join('models', 'multimodal', 'vindlu', 'modeling_bert.py')


def apply() -> None:
    """Apply every workaround that this installation needs; idempotent."""
    require_mmcv()
    alias_importlib_metadata()
    complete_localizers()
    disable_broken_multimodal()
    read_checkpoints_safely()
    start_loaders_late()
    let_configs_be_inherited()
    resume_from_own_folder()
    keep_updates_uncompiled()


def require_mmcv() -> None:
    """Explain how to get mmcv, which mmaction2 needs but does not declare."""
    if find_spec('mmcv') is None:
        raise ImportError(
            'eaglenet_mm needs mmcv>=2.0.1,<2.2, but none is installed. '
            "Install the light one with: pip install 'eaglenet_mm[lite]' "
            '(or a compiled mmcv, if other projects need its operators; '
            'never both, they share one folder).'
        )


def alias_importlib_metadata() -> bool:
    """Let the standard library stand in for ``importlib_metadata``.

    Cause: mmaction2 1.2.0 imports the back-port, without declaring it, for two
    names that :mod:`importlib.metadata` also has. End: when mmaction2 declares
    the dependency or imports the standard module. This package declares it, so
    only installations with ``--no-deps`` are affected.
    """
    name = 'importlib_metadata'
    if name in sys.modules or find_spec(name) is not None:
        return False
    sys.modules[name] = importlib.metadata
    return True


def complete_localizers() -> bool:
    """Provide the package that is missing from the mmaction2 1.2.0 wheel.

    Cause: ``mmaction.models.localizers`` imports ``drn``, a folder missing
    from the published wheel (mmaction2 issue 2714), so that
    ``import mmaction.models`` fails. End: a release with the folder or without
    the import. Building ``DRN`` then raises an error.
    """
    root = _package_folder('mmaction')
    if root is None:
        return False
    folder = osp.join(root, 'models', 'localizers')
    asked_for = 'from .drn' in _text(osp.join(folder, '__init__.py'))
    there = osp.exists(osp.join(folder, 'drn'))
    name = 'mmaction.models.localizers.drn'
    if not asked_for or there or name in sys.modules:
        return False
    package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
    package.__path__ = []
    module.DRN = _MissingDRN  # type: ignore[attr-defined]
    sys.modules[package.__name__] = package
    sys.modules[module.__name__] = module
    return True


class _MissingDRN:
    """Localizer that is missing from the mmaction2 wheel."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError(
            'DRN is not part of the published mmaction2 1.2.0 wheel. '
            'Install mmaction2 from its source to use it.'
        )


def disable_broken_multimodal() -> bool:
    """Disable mmaction2's multimodal models if transformers is too new.

    Cause: VindLU of mmaction2 1.2.0 imports ``apply_chunking_to_forward`` from
    ``transformers.modeling_utils``, which transformers 4.56 removed, so that
    ``import mmaction.models`` fails. End: an mmaction2 without that import.
    VindLU is unavailable meanwhile, as if transformers were absent.
    """
    root = _package_folder('mmaction')
    if root is None or find_spec('transformers') is None:
        return False
    try:
        version = importlib.metadata.version('transformers')
    except importlib.metadata.PackageNotFoundError:
        return False
    numbers = [int(part) for part in re.findall(r'\d+', version)[:2]]
    if numbers < [4, 56]:
        return False
    if 'apply_chunking_to_forward' not in _text(osp.join(root, _VINDLU)):
        return False
    from mmaction.utils import dependency

    if not dependency.WITH_MULTIMODAL:
        return False
    dependency.WITH_MULTIMODAL = False
    return True


def read_checkpoints_safely() -> bool:
    """Let MMEngine read its own checkpoints without executing them.

    Cause: MMEngine 0.10.7 calls ``torch.load`` without options. Since torch
    2.6 that refuses MMEngine's own checkpoints, which hold history buffers
    (mmengine issue 1655); before, it executed any code in the file, as it
    still does for downloads. End: an MMEngine whose loaders pass
    ``weights_only`` or ``pickle_module``. A local loader registered by others
    is left alone.
    """
    from mmengine.runner import checkpoint

    from eaglenet_mm.utils import safe_checkpoint

    needed = False
    # there is no public way to read an entry
    loader = checkpoint.CheckpointLoader._schemes.get('')
    if loader is checkpoint.load_from_local and not _chooses(loader):
        checkpoint.CheckpointLoader.register_scheme(
            prefixes='',
            loader=safe_checkpoint.load_checkpoint_for_runner,
            force=True,
        )
        needed = True
    downloads = getattr(checkpoint, 'load_url', None)
    if getattr(downloads, '__module__', None) == 'torch.hub':
        checkpoint.load_url = safe_checkpoint.load_checkpoint_url
        needed = True
    return needed


def start_loaders_late() -> bool:
    """Let the iteration-based loop start its loader at the first batch.

    Cause: ``IterBasedTrainLoop`` of MMEngine 0.10.7 starts the loader and its
    workers when it is built: they read the first batches before any hook is
    called or checkpoint loaded, so a dataset cannot be told anything.
    ``EpochBasedTrainLoop`` starts it after ``before_train_epoch``. End: an
    MMEngine whose iteration-based loop does the same.
    """
    from mmengine.runner import loops

    iterator = loops._InfiniteDataloaderIterator
    started = []

    class Probe:
        def __iter__(self) -> Iterator[None]:
            started.append(True)
            return iter(())

    iterator(Probe())
    if not started:
        return False

    def wait_for_first_batch(self: Any, dataloader: Iterable) -> None:
        def batches() -> Iterator:
            yield from dataloader

        self._dataloader = dataloader
        self._iterator = batches()
        self._epoch = 0

    iterator.__init__ = wait_for_first_batch
    return True


def let_configs_be_inherited() -> bool:
    """Let ``_base_ = 'eaglenet_mm::...'`` and ``mmengine.hub`` find configs.

    Cause: MMEngine 0.10.7 reads configs only from packages in its own table.
    It looks up entries as installed distributions first and then does not find
    the folder of an editable one, so our entry is a module, beside which
    ``.mim`` lies. End: an MMEngine that accepts any installed package.
    """
    from mmengine.config import utils

    if 'eaglenet_mm' in utils.MODULE2PACKAGE:
        return False
    utils.MODULE2PACKAGE['eaglenet_mm'] = 'eaglenet_mm.version'
    return True


def resume_from_own_folder() -> bool:
    """Let a copied or moved work directory resume its own checkpoint.

    Cause: MMEngine 0.10.7 writes an absolute path to ``last_checkpoint`` and
    follows it unchecked, so a copied folder continues from the files of the
    original. End: an MMEngine that looks beside the file.
    """
    from mmengine.runner import _flexible_runner, checkpoint, runner

    from eaglenet_mm.utils import safe_checkpoint

    find = checkpoint.find_latest_checkpoint
    if {'isfile', 'basename', 'relpath'} & set(find.__code__.co_names):
        return False
    package = sys.modules['mmengine.runner']
    for module in (checkpoint, runner, _flexible_runner, package):
        if getattr(module, 'find_latest_checkpoint', None) is find:
            vars(module)['find_latest_checkpoint'] = (
                safe_checkpoint.find_latest_checkpoint
            )
    return True


def keep_updates_uncompiled() -> bool:
    """Exclude the optimizer step and backward pass from ``compile=True``.

    Cause: MMEngine 0.10.7 compiles the whole ``train_step``. Tracing the
    optimizer step raises for parameter groups of MMEngine, is repeated for
    every learning rate, and changes the numbers of Adam. End: an MMEngine that
    compiles only the model.
    """
    import torch
    from mmengine.optim import OptimWrapper

    update = OptimWrapper.update_params
    if hasattr(update, '__wrapped__'):
        return False
    # unlike torch.compiler.disable, without the import of the compiler
    OptimWrapper.update_params = torch._disable_dynamo(update)
    return True


def _chooses(loader: types.FunctionType) -> bool:
    """Whether a loader specifies how to read the pickle."""
    options = {'weights_only', 'pickle_module'}
    return any(
        isinstance(constant, tuple) and options & set(constant)
        for constant in loader.__code__.co_consts
    )


def _package_folder(name: str) -> str | None:
    """Find a package without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return osp.dirname(spec.origin)


def _text(path: str) -> str:
    """Read a source file of another package; empty if missing."""
    if not osp.isfile(path):
        return ''
    with open(path, encoding='utf-8') as file:
        return file.read()
