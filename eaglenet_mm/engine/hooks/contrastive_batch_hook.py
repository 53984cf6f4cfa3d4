"""Report of the contrastive batch size, which is part of the method."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from eaglenet_mm.registry import HOOKS


@HOOKS.register_module()
class ContrastiveBatchHook(Hook):
    """Log the contrastive batch size and warn if it is not the recipe's.

    Negatives come from the batch, so the number of pairs in one loss (batch
    size of a process times the number of processes) changes the method, not
    just its speed. Gradient accumulation does not enlarge it; to fit a larger
    batch into memory, set the model's ``encoder_micro_batch``. The log says
    which of the two are in use. A training without a single step is refused.

    Args:
        expected_batch_size (int, optional): Pairs in one loss that the recipe
            was made for. Default: ``auto_scale_lr.base_batch_size`` of the
            config; without either, no warning is given.

    Example:
        >>> custom_hooks = [
        ...     dict(type='ContrastiveBatchHook', expected_batch_size=128)]
    """

    def __init__(self, expected_batch_size: int | None = None) -> None:
        self.expected_batch_size = expected_batch_size

    def before_train(self, runner: Runner) -> None:
        """Log the batch size and compare it with the expected one.

        Raises:
            ValueError: If the batch size of the training dataloader is
                unknown, or as in :func:`check_training_steps`.
        """
        loader = runner.train_dataloader
        check_training_steps(loader, getattr(runner, 'train_loop', None))
        own = _batch_size(loader)
        if own is None:
            raise ValueError(
                'ContrastiveBatchHook needs to know the batch size, but '
                'neither the training dataloader nor its batch sampler has '
                "one. Give the batch sampler a 'batch_size' attribute."
            )
        processes = get_world_size()
        batch = own * processes
        accumulation = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        note = (
            'no gradient accumulation'
            if accumulation == 1
            else f'gradients of {accumulation} such batches are accumulated, '
            'which does not grow the contrastive batch: pairs of different '
            'batches never meet in a loss'
        )
        print_log(
            f'Contrastive batch: {batch} pairs in one loss ({own} a process, '
            f'{processes} processes), {_encoding(runner, own)}; {note}.',
            logger='current',
        )
        expected = self.expected_batch_size
        if expected is None:
            scale = runner.cfg.get('auto_scale_lr') or {}
            expected = scale.get('base_batch_size')
        if expected is not None and expected != batch:
            print_log(
                f'The recipe was made for {expected} pairs in one loss, but '
                f'this run has {batch}. In-batch negatives are part of the '
                'method: change train_dataloader.batch_size (where memory is '
                'short, with model.encoder_micro_batch) or the number of '
                'processes, or expect other results.',
                logger='current',
                level=logging.WARNING,
            )


def check_training_steps(loader: Any, loop: Any = None) -> None:
    """Refuse a training without steps; to be called on every process.

    No batch is complete, processes differ in their number of batches (one
    would wait for the others forever), or the loop has no iterations.
    """
    try:
        own = len(loader)
    except TypeError:  # a stream
        own = None
    numbers = all_gather_object(own)
    if len(set(numbers)) > 1:
        raise ValueError(
            'Every process must have equally many training batches, but they '
            f'have {numbers}, in order of rank. Set round_up=True in '
            'train_dataloader.sampler.'
        )
    if own == 0:
        raise ValueError(_no_batch(loader))
    for name in ('max_epochs', 'max_iters'):
        length = getattr(loop, name, 1)
        if length < 1:
            raise ValueError(
                f'train_cfg.{name} must be at least 1, but got {length}: the '
                'training would end before its first step. To evaluate a '
                'model as it is, use tools/test.py.'
            )


def _batch_size(loader: Any) -> int | None:
    """Batch size of this process, or None if it is unknown."""
    return loader.batch_size or getattr(
        loader.batch_sampler, 'batch_size', None
    )


def _no_batch(loader: Any) -> str:
    """Compare the number of items with the size of a batch."""
    total = len(loader.dataset)
    sampler = getattr(loader, 'sampler', None)
    own = total if sampler is None else len(sampler)
    processes = get_world_size()
    share = '' if processes == 1 else f', {own} for each of {processes}'
    meaning = (
        'which shows items again rather than end, so that a pair would be '
        'its own negative'
        if isinstance(sampler, InfiniteSampler)
        else 'and drop_last leaves out incomplete ones: no step would be made'
    )
    return (
        f'The training set has {total} items{share}, but a batch of a process '
        f'has {_batch_size(loader)}, {meaning}. Set '
        f'train_dataloader.batch_size to {max(own, 1)} or less, or give more '
        'data.'
    )


def _encoding(runner: Runner, batch_size: int) -> str:
    """Describe how the model encodes the batch of a process."""
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    size = getattr(model, 'encoder_micro_batch', None)
    if size is None or size >= batch_size:
        return 'encoded at once'
    return f'encoded in micro-batches of {size}, one contrastive batch'
