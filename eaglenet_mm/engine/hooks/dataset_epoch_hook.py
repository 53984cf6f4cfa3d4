"""Tell datasets which epoch begins."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eaglenet_mm.registry import HOOKS


@HOOKS.register_module()
class DatasetEpochHook(Hook):
    """Call ``set_epoch`` of the training dataset before each epoch.

    MMEngine tells the sampler only. Wrappers that draw another caption in
    each epoch need the number too, and get the right one after a resume. The
    outermost dataset with a ``set_epoch`` is told and passes it on; through
    wrappers without one the hook goes by their ``dataset`` or ``datasets``.

    Note:
        Meant for ``EpochBasedTrainLoop``; an iteration-based loop calls
        ``before_train_epoch`` once only.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass on the number of the epoch, counted from 0.

        Args:
            runner (Runner): The runner of the training.
        """
        _set_epoch(runner.train_dataloader.dataset, runner.epoch)


def _set_epoch(dataset: Any, epoch: int) -> None:
    """Tell the outermost datasets that listen."""
    if hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(epoch)
        return
    inner = [getattr(dataset, 'dataset', None)]
    for part in [*inner, *getattr(dataset, 'datasets', [])]:
        if part is not None:
            _set_epoch(part, epoch)
