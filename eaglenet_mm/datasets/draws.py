"""Which draw of an item a data set is asked for.

A data set that gives something else each time, such as another caption, must
know how often the item was drawn before. A worker process cannot count that:
it sees some of the batches, at its own speed. The sampler can, so the number
travels with the index, from the process that iterates the sampler to the
worker that reads the item, through whatever wrappers lie between.
"""

from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader

from eaglenet_mm.datasets.shared_records import all_datasets


class DrawnIndex(int):
    """Index of an item of the outermost data set, and which draw it is."""

    #: Passes over the data set before this one.
    pass_number: int
    #: Draws of the index in this pass before this one.
    repeat: int

    def __new__(
        cls, index: int, pass_number: int, repeat: int = 0
    ) -> 'DrawnIndex':
        """Make the number."""
        drawn = super().__new__(cls, index)
        drawn.pass_number, drawn.repeat = pass_number, repeat
        return drawn

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnIndex, (int(self), self.pass_number, self.repeat)


_CURRENT: ContextVar[DrawnIndex | None] = ContextVar('draw', default=None)


def current_draw() -> DrawnIndex | None:
    """Return the draw that is being answered.

    Returns:
        DrawnIndex or None: Its value is the index that the sampler gave to
        the outermost data set. None outside of a loader whose draws are
        numbered, see :func:`number_draws`.
    """
    return _CURRENT.get()


class NumberedSampler:
    """A sampler whose indices say which draw they are.

    A pass is one iteration of the sampler; of MMEngine's ``InfiniteSampler``
    as many draws, by all processes together, as there are items. Of another
    sampler without end, all is one pass, and an index is counted within its
    own process. Everything else is asked of the sampler inside.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self._next_pass = 0
        self._num_drawn = 0  # of a sampler without end, by this process

    def begin_at(self, pass_number: int) -> None:
        """Say which number the next pass has; later ones count on."""
        self._next_pass = pass_number

    def __iter__(self) -> Iterator[DrawnIndex]:
        if isinstance(self.sampler, InfiniteSampler):
            # of a stream each process takes every n-th; it goes on where it
            # stopped, and so does the count
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
        if name == 'sampler':  # while it is being copied
            raise AttributeError(name)
        return getattr(self.sampler, name)


class _DrawnItems:
    """Gives the items of a batch; the data set inside can ask which draw."""

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
    """Let the data set of a loader know which draw it is asked for.

    Must be called before the loader is iterated. Calling it again changes
    nothing. The loader keeps its sampler; its batch sampler gets a numbered
    one in the place of it.

    Args:
        loader (DataLoader): Of a training.

    Returns:
        NumberedSampler or None: What numbers the draws, with ``begin_at``;
        None if nothing in the data set asks for draws.

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
    # torch asks the data set for a whole batch by this name if it is there
    vars(loader.dataset)['__getitems__'] = _DrawnItems(loader.dataset)
    if getattr(batches, 'gives_draws', False):
        return batches
    if not isinstance(batches.sampler, NumberedSampler):
        batches.sampler = NumberedSampler(batches.sampler)
    return batches.sampler
