"""Tell datasets which epoch begins, and which draw they are asked for."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from eaglenet_mm.datasets import RetrievalDatasetWrapper
from eaglenet_mm.datasets.draws import number_draws
from eaglenet_mm.datasets.shared_records import all_datasets, tell_epoch
from eaglenet_mm.registry import HOOKS


@HOOKS.register_module()
class DatasetEpochHook(Hook):
    """Let the training dataset give something else at each draw of an item.

    MMEngine tells the sampler the epoch, and the dataset nothing. Wrappers
    that draw another caption each time, such as
    :class:`~eaglenet_mm.datasets.RandomCaption`, need to know how often an
    item was drawn: the hook numbers the draws of the loader, by epochs or by
    passes over the data, see :func:`~eaglenet_mm.datasets.number_draws`. They
    are the same after a resume.

    Besides, ``set_epoch`` of the training dataset is called before each
    epoch. The outermost dataset with a ``set_epoch`` is told and passes it
    on; through wrappers without one the hook goes by their ``dataset`` or
    ``datasets``.

    Note:
        An iteration-based loop calls ``before_train_epoch`` once only: own
        datasets with a ``set_epoch`` hear of epoch 0 alone. They can ask
        :func:`~eaglenet_mm.datasets.current_draw` instead, and say so by an
        attribute ``reads_draws = True``.

    Example:
        >>> custom_hooks = [dict(type='DatasetEpochHook')]
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass on the number of the epoch, counted from 0.

        Raises:
            TypeError: If the draws of a dataset that needs it cannot be
                numbered under an iteration-based loop.
        """
        dataset = runner.train_dataloader.dataset
        loop = getattr(runner, 'train_loop', None)
        if not isinstance(loop, IterBasedTrainLoop):
            batches = getattr(runner.train_dataloader, 'batch_sampler', None)
            if hasattr(batches, 'sampler'):  # else the epoch must do
                numbering = number_draws(runner.train_dataloader)
                if numbering is not None:
                    numbering.begin_at(runner.epoch)
            tell_epoch(dataset, runner.epoch)
            return
        # the loop replays, after a resume, what was drawn before
        number_draws(runner.train_dataloader)
        for part in all_datasets(dataset):
            # ours would take the epoch for the pass
            if not isinstance(part, RetrievalDatasetWrapper) and hasattr(
                type(part), 'set_epoch'
            ):
                part.set_epoch(runner.epoch)
