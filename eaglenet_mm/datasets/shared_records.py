"""State shared by loader workers, and traversal of nested datasets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from torch.utils.data import get_worker_info

# More than any loader has; beyond it, workers share slots.
_MAX_WORKERS = 512


class LostVideos:
    """Set of unreadable videos, shared by all processes of a loader."""

    def __init__(self, num_videos: int) -> None:
        self._flags = torch.zeros(num_videos, dtype=torch.uint8)
        self._flags.share_memory_()

    def add(self, index: int) -> bool:
        """Add a video; return whether it is new."""
        if self._flags[index]:
            return False
        self._flags[index] = 1
        return True

    def indices(self) -> list[int]:
        """Return the indices of the lost videos, ascending."""
        return torch.nonzero(self._flags).flatten().tolist()

    def __contains__(self, index: int) -> bool:
        return bool(self._flags[index])

    def __len__(self) -> int:
        return int(self._flags.sum())


class CurrentItems:
    """The item each loader worker is busy with.

    A worker that dies cannot report its item; its slot in shared memory can.
    """

    def __init__(self) -> None:
        # process id, and item index plus 1 (0: none)
        self._places = torch.zeros(_MAX_WORKERS, 2, dtype=torch.int64)
        self._places.share_memory_()

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Mark an item as being read by this worker."""
        self._write(index + 1)
        try:
            yield
        finally:
            self._write(0)

    def of_processes(self, pids: list[int]) -> list[int]:
        """Return the items that these processes were reading."""
        return [
            int(place) - 1
            for pid, place in self._places.tolist()
            if place and pid in pids
        ]

    def _write(self, value: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            row = self._places[worker.id % _MAX_WORKERS]
            row[0], row[1] = os.getpid(), value


def wrapped_datasets(dataset: Any) -> list[Any]:
    """List the datasets directly inside any kind of wrapper."""
    if isinstance(dataset, BaseDataset):  # MMEngine's wrappers are not one
        return []
    inner = getattr(dataset, 'dataset', None)
    parts = [*getattr(dataset, 'datasets', []), inner]
    # a dataset may have an unrelated attribute 'dataset', e.g. its name
    return [x for x in parts if not isinstance(x, str | dict | None)]


def all_datasets(dataset: Any) -> Iterator[Any]:
    """Iterate over a dataset and all inside it, outermost first."""
    yield dataset
    for part in wrapped_datasets(dataset):
        yield from all_datasets(part)


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """Iterate over the innermost datasets, which wrap no other."""
    return (x for x in all_datasets(dataset) if not wrapped_datasets(x))


def recording_datasets(dataset: Any) -> Iterator[Any]:
    """Iterate over datasets with ``current_items`` and ``lost_videos``."""
    if hasattr(dataset, 'current_items'):
        yield dataset
        return
    sources = getattr(dataset, 'item_sources', None)
    for part in wrapped_datasets(dataset) if sources is None else sources:
        yield from recording_datasets(part)


def tell_epoch(dataset: Any, epoch: int) -> None:
    """Call ``set_epoch`` on the outermost datasets that have it."""
    if hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(epoch)
        return
    for part in wrapped_datasets(dataset):
        tell_epoch(part, epoch)


def identify(path: str) -> tuple[int, int]:
    """Return size and modification time of a file, or -1, -1."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns
