"""Epoch and draw numbers for datasets."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from eaglenet_mm.datasets import RetrievalDatasetWrapper
from eaglenet_mm.datasets.draws import number_draws
from eaglenet_mm.datasets.shared_records import all_datasets, tell_epoch
from eaglenet_mm.registry import HOOKS


@HOOKS.register_module()
class DatasetEpochHook(Hook):
    """Tell the training dataset the epoch and number the draws of its items.

    MMEngine tells only the sampler which epoch it is. Wrappers that return
    something else each time, such as
    :class:`~eaglenet_mm.datasets.RandomCaption`, need to know how often an
    item was drawn. The hook numbers the draws by epochs or by passes over the
    data, see :func:`~eaglenet_mm.datasets.number_draws`; a resumed run
    continues the count.

    Before each epoch it also calls ``set_epoch`` of the outermost dataset that
    has one, which is expected to pass it on. Wrappers without ``set_epoch``
    are searched through their ``dataset`` or ``datasets``.

    Note:
        An iteration-based loop calls ``before_train_epoch`` only once, so your
        own ``set_epoch`` gets only epoch 0. Ask
        :func:`~eaglenet_mm.datasets.current_draw` instead, and set the
        attribute ``reads_draws = True``.

    Example:
        >>> custom_hooks = [dict(type='DatasetEpochHook')]
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass on the epoch, counted from 0.

        Raises:
            TypeError: If a dataset needs numbered draws and an iteration-based
                loop cannot provide them.
        """
        dataset = runner.train_dataloader.dataset
        loop = getattr(runner, 'train_loop', None)
        if not isinstance(loop, IterBasedTrainLoop):
            batches = getattr(runner.train_dataloader, 'batch_sampler', None)
            if hasattr(batches, 'sampler'):  # else only the epoch is known
                numbering = number_draws(runner.train_dataloader)
                if numbering is not None:
                    numbering.begin_at(runner.epoch)
            tell_epoch(dataset, runner.epoch)
            return
        # after a resume the loop replays earlier draws
        number_draws(runner.train_dataloader)
        for part in all_datasets(dataset):
            # our wrappers would mistake the epoch for a pass
            if not isinstance(part, RetrievalDatasetWrapper) and hasattr(
                type(part), 'set_epoch'
            ):
                part.set_epoch(runner.epoch)
