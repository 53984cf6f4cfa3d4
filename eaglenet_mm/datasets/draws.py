"""Numbers for repeated draws of an item.

A dataset that returns something different each time, such as another caption,
must know how often the item was drawn before. A worker process cannot count
that: it sees only some of the batches. The sampler can, so the number travels
with the index from the sampler's process to the worker that reads the item,
through any wrappers in between.
"""

from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader

from eaglenet_mm.datasets.shared_records import all_datasets


class DrawnIndex(int):
    """Index into the outermost dataset that carries its draw number."""

    #: Number of earlier passes over the dataset.
    pass_number: int
    #: Number of earlier draws of the index in this pass.
    repeat: int

    def __new__(
        cls, index: int, pass_number: int, repeat: int = 0
    ) -> 'DrawnIndex':
        """Create the index."""
        drawn = super().__new__(cls, index)
        drawn.pass_number, drawn.repeat = pass_number, repeat
        return drawn

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnIndex, (int(self), self.pass_number, self.repeat)


_CURRENT: ContextVar[DrawnIndex | None] = ContextVar('draw', default=None)


def current_draw() -> DrawnIndex | None:
    """Return the draw being answered.

    Returns:
        DrawnIndex or None: The index that the sampler gave to the outermost
        dataset; None where draws are not numbered, see :func:`number_draws`.
    """
    return _CURRENT.get()


class NumberedSampler:
    """A sampler whose indices carry their draw number.

    A pass is one iteration of the sampler. For MMEngine's ``InfiniteSampler``
    it is as many draws, over all processes, as there are items. Any other
    infinite sampler is a single pass, counted per process. All other
    attributes are those of the wrapped sampler.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self._next_pass = 0
        self._num_drawn = 0  # from an infinite sampler, by this process

    def begin_at(self, pass_number: int) -> None:
        """Set the number of the next pass; later passes count up from it."""
        self._next_pass = pass_number

    def __iter__(self) -> Iterator[DrawnIndex]:
        if isinstance(self.sampler, InfiniteSampler):
            # each process takes every n-th index of the stream; like the
            # stream, the count continues where it stopped
            for index in self.sampler:
                place = self._num_drawn * self.sampler.world_size
                place += self.sampler.rank
                self._num_drawn += 1
                yield DrawnIndex(index, place // self.sampler.size)
            return
        pass_number = self._next_pass
        self._next_pass += 1
        seen: Counter[int] = Counter()
        for index in self.sampler:
            yield DrawnIndex(index, pass_number, seen[index])
            seen[index] += 1

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':  # during copying
            raise AttributeError(name)
        return getattr(self.sampler, name)


class _DrawnItems:
    """Fetches a batch while telling the dataset the draw of each item."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list[Any]:
        return [self._get(index) for index in indices]

    def _get(self, index: int) -> Any:
        drawn = index if isinstance(index, DrawnIndex) else None
        token = _CURRENT.set(drawn)
        try:
            own = getattr(type(self.dataset), '__getitems__', None)
            if own is not None:
                return own(self.dataset, [int(index)])[0]
            return self.dataset[int(index)]
        finally:
            _CURRENT.reset(token)


def number_draws(loader: DataLoader) -> NumberedSampler | Any | None:
    """Number the draws of a loader, for datasets that depend on them.

    Call it before the loader is iterated; calling it again is harmless. The
    sampler of the loader's batch sampler is wrapped in place.

    Args:
        loader (DataLoader): A training loader.

    Returns:
        NumberedSampler or None: The sampler that numbers the draws, with
        ``begin_at``; None if no dataset inside needs draw numbers.

    Raises:
        TypeError: If the loader has no batch sampler with a ``sampler``.
    """
    if not any(
        getattr(dataset, 'reads_draws', False)
        for dataset in all_datasets(loader.dataset)
    ):
        return None
    batches: Any = getattr(loader, 'batch_sampler', None)
    if not hasattr(batches, 'sampler'):
        raise TypeError(
            'To number the draws of items, the loader needs a batch sampler '
            f"with a 'sampler', but got {type(batches).__name__}. Give the "
            'loader a batch size, or derive the batch sampler from '
            "torch's BatchSampler."
        )
    # torch fetches whole batches through this name where it exists
    vars(loader.dataset)['__getitems__'] = _DrawnItems(loader.dataset)
    if getattr(batches, 'gives_draws', False):
        return batches
    if not isinstance(batches.sampler, NumberedSampler):
        batches.sampler = NumberedSampler(batches.sampler)
    return batches.sampler
