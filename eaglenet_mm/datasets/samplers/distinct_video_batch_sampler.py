"""Batches without two captions of the same video."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.runner.runner import _SlicedDataset

from eaglenet_mm.datasets.draws import DrawnIndex
from eaglenet_mm.datasets.fetching import as_source
from eaglenet_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class DistinctVideoBatchSampler:
    """Batch sampler that puts each video into a batch at most once.

    In-batch losses would treat another caption of the same video as a
    negative. Here the global batch, over all processes, has distinct
    ``video_id``. Items are shuffled as usual, except that an item whose video
    is already in the batch waits for the next one. The order depends only on
    the seed and the pass, and n processes get the same batches as one with n
    times the batch size.

    A pass has as many full batches as the numbers of captions allow. It gives
    an item at most once; the number of items left out is logged, and others
    are left out in the next pass.

    Args:
        sampler (DefaultSampler | InfiniteSampler): Source of dataset, seed,
            epoch, shuffling and whether to repeat forever; set by the
            dataloader config.
        batch_size (int): Batch size per process; set likewise.
        drop_last (bool): Must be True: smaller batches have fewer negatives.
            Default: True.

    Attributes:
        num_left_out (int): Number of items left out of each pass.

    Note:
        The substitute for an unreadable video (``on_missing='skip'``) may
        already be in the batch.

    Raises:
        TypeError: If the sampler has another type.
        ValueError: If there are fewer videos than items in a batch, or
            ``drop_last`` is False.

    Example:
        In a config: ``train_dataloader = dict(batch_size=64, drop_last=False,
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_sampler=dict(type='DistinctVideoBatchSampler'))``

        >>> batches = DistinctVideoBatchSampler(DefaultSampler(dataset), 2)
        >>> len(batches)
        1
    """

    #: Indices carry their draw number, see :mod:`..draws`.
    gives_draws = True

    def __init__(
        self,
        sampler: DefaultSampler | InfiniteSampler,
        batch_size: int,
        *,
        drop_last: bool = True,
    ) -> None:
        if not isinstance(sampler, DefaultSampler | InfiniteSampler):
            raise TypeError(
                'DistinctVideoBatchSampler needs a DefaultSampler or '
                'InfiniteSampler of MMEngine, for its seed and epoch, but got '
                f'{type(sampler).__name__}. Change train_dataloader.sampler.'
            )
        if not drop_last:
            raise ValueError(
                'DistinctVideoBatchSampler makes full batches only, but got '
                'drop_last=False. Leave it out.'
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._rank, self._world_size = get_dist_info()
        dataset = sampler.dataset
        if isinstance(dataset, _SlicedDataset):  # num_batch_per_epoch
            dataset = dataset._dataset
        source = as_source(dataset, type(self).__name__)
        source.full_init()
        numbers: dict[str, int] = {}
        self._videos = [
            numbers.setdefault(video_id, len(numbers))
            for video_id in source.video_ids()[: len(sampler.dataset)]
        ]
        joint = batch_size * self._world_size
        self._num_batches = _most_batches(self._videos, joint)
        if not self._num_batches:
            raise ValueError(
                f'A batch of {joint} items ({batch_size} for each of '
                f'{self._world_size} processes) needs as many distinct '
                f'videos, but the dataset has {len(numbers)}. Lower '
                'train_dataloader.batch_size.'
            )
        self.num_left_out = len(self._videos) - self._num_batches * joint
        print_log(
            f'A pass over {len(self._videos)} items makes {self._num_batches} '
            f'batches of {joint} items of different videos; '
            f'{self.num_left_out} items are left out of each pass'
            f'{", others each time" if sampler.shuffle else ""}.',
            logger='current',
        )

    def begin_at(self, pass_number: int) -> None:
        """Do nothing: the sampler's epoch numbers the passes."""

    def __iter__(self) -> Iterator[list[DrawnIndex]]:
        if isinstance(self.sampler, InfiniteSampler):
            for pass_number in count():
                yield from self._batches(pass_number)
        else:
            yield from self._batches(self.sampler.epoch)

    def _batches(self, pass_number: int) -> Iterator[list[DrawnIndex]]:
        """This process's share of each batch of a pass."""
        num_items = len(self._videos)
        if self.sampler.shuffle:
            generator = torch.Generator()
            generator.manual_seed(self.sampler.seed + pass_number)
            order = torch.randperm(num_items, generator=generator).tolist()
        else:
            order = list(range(num_items))
        size = self.batch_size * self._world_size
        for batch in _distinct(order, self._videos, self._num_batches, size):
            yield [
                DrawnIndex(index, pass_number)
                for index in batch[self._rank :: self._world_size]
            ]

    def __len__(self) -> int:
        return self._num_batches


def _most_batches(videos: Sequence[int], size: int) -> int:
    """Maximum number of full batches with distinct videos.

    n batches are possible if and only if n times their size is at most the
    number of items, counting at most n per video.
    """
    counts = Counter(videos).values()
    low, high = 0, len(videos) // size
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(x, middle) for x in counts) >= middle * size:
            low = middle
        else:
            high = middle - 1
    return low


def _distinct(
    order: Sequence[int], videos: Sequence[int], num_batches: int, size: int
) -> Iterator[list[int]]:
    """Cut an order into batches, deferring repeated videos."""
    # at most as many items per video as there are batches
    waiting: dict[int, deque[int]] = defaultdict(deque)
    visits: list[int] = []
    for index in order:
        video = videos[index]
        if len(waiting[video]) < num_batches and (
            len(visits) < num_batches * size
        ):
            waiting[video].append(index)
            visits.append(video)
    with_count: dict[int, dict[int, None]] = defaultdict(dict)
    for video, items in waiting.items():
        with_count[len(items)][video] = None

    def place(video: int, batch: dict[int, int]) -> None:
        items = waiting[video]
        del with_count[len(items)][video]
        batch[video] = items.popleft()
        with_count[len(items)][video] = None

    upcoming = iter(visits)
    put_off: Counter[int] = Counter()  # deferred visits per video
    for left in range(num_batches, 0, -1):
        batch: dict[int, int] = {}  # video to item
        # these must be in every remaining batch for all items to fit
        for video in list(with_count[left]):
            place(video, batch)
        for video in list(put_off):
            if len(batch) < size and video not in batch:
                if waiting[video]:
                    place(video, batch)
                put_off[video] -= 1
                if not put_off[video]:
                    del put_off[video]
        while len(batch) < size:
            video = next(upcoming)
            if video in batch:
                put_off[video] += 1
            elif waiting[video]:
                place(video, batch)
        yield list(batch.values())
