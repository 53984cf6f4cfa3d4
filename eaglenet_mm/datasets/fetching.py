"""Fetching an item from any dataset, through its pipeline."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.logging import print_log
from torch.utils.data import ConcatDataset

from eaglenet_mm.datasets.shared_records import CurrentItems, LostVideos

if TYPE_CHECKING:
    from eaglenet_mm.datasets.text_video_dataset import TextVideoDataset

#: Keys of every item before the pipeline; ``start``, ``end`` are optional.
ITEM_KEYS = (
    'video_id',
    'video',
    'captions',
    'caption_indices',
    'video_index',
)

#: Our datasets and wrappers, or one of the adapters below.
ItemSource: TypeAlias = (
    'TextVideoDataset | RearrangedItems | _JoinedSource | _ForeignSource'
)


def fetch(source: ItemSource, index: int, max_refetch: int) -> Any:
    """Get an item, or a substitute if the pipeline drops it.

    The substitute depends on the index alone, so runs are reproducible with
    any number of workers. Substitutes are spread over the set, so that a block
    of lost videos does not turn into copies of the next readable one.
    """
    length = len(source)
    if not -length <= index < length:
        raise IndexError(
            f'Expected an item from 0 to {length - 1}, but got {index}.'
        )
    place = index % length
    generator = None
    for _ in range(max_refetch + 1):
        result = source.process(source.get_data_info(place))
        if result is not None:
            return result
        generator = generator or np.random.default_rng([index % length])
        place = int(generator.integers(length))
    raise RuntimeError(
        f'The pipeline gave nothing for item {index} and {max_refetch} others '
        'in its place. Check the videos named in the log with '
        "tools/check_videos.py, or raise 'max_refetch'."
    )


def as_source(dataset: Any, reader: str = 'This wrapper') -> ItemSource:
    """Adapt any dataset to the interface of ours.

    A foreign dataset needs ``get_data_info``, ``__len__`` and a ``pipeline``
    (or ``process``), as MMEngine's ``BaseDataset`` has them, and items with
    :data:`ITEM_KEYS`. Concatenated and repeated datasets are read through.
    ``reader`` is the caller's name in error messages.
    """
    # looked up on the class: a property may need the annotation
    # those of the class: a property may need the annotation
    if all(hasattr(type(dataset), name) for name in _SOURCE_NAMES):
        return dataset
    if isinstance(dataset, ConcatDataset):
        return _JoinedSource([as_source(x, reader) for x in dataset.datasets])
    if isinstance(dataset, RepeatDataset | ClassBalancedDataset):
        return _RepeatedSource(dataset, as_source(dataset.dataset, reader))
    return _ForeignSource(dataset, reader)


_SOURCE_NAMES = (
    '__len__',
    'get_data_info',
    'process',
    'items_are_videos',
    'full_init',
    'count_captions',
    'video_ids',
)


class RearrangedItems:
    """Items made from those of one source, in another order."""

    def __init__(self, source: ItemSource) -> None:
        self.source = source
        self.item_sources = [source]

    def source_index(self, index: int) -> int:
        """Return the index of the source item behind an item."""
        return index

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, adjusted to these items."""
        return self.source.metainfo

    @property
    def test_mode(self) -> bool:
        """bool: Whether the set is used for evaluation."""
        return self.source.test_mode

    @property
    def max_refetch(self) -> int:
        """int: Number of substitutes tried for an unreadable item."""
        return self.source.max_refetch

    @property
    def items_are_videos(self) -> bool:
        """bool: Whether items and videos correspond one to one."""
        return self.source.items_are_videos

    def full_init(self) -> None:
        """Load the annotation if not done yet."""
        self.source.full_init()

    def __len__(self) -> int:
        return len(self.source)

    def count_captions(self, index: int) -> int:
        """Return the number of captions of an item."""
        return self.source.count_captions(self.source_index(index))

    def video_ids(self) -> list[str]:
        """Return the video id of each item."""
        ids = self.source.video_ids()
        return [ids[self.source_index(index)] for index in range(len(self))]

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline."""
        return self.source.get_data_info(self.source_index(index))

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline."""
        return self.source.process(item)


class _RepeatedSource(RearrangedItems):
    """Items of MMEngine's ``RepeatDataset`` or ``ClassBalancedDataset``."""

    items_are_videos = False

    def __init__(self, dataset: Any, source: ItemSource) -> None:
        super().__init__(source)
        self.dataset = dataset

    def full_init(self) -> None:
        super().full_init()
        self.dataset.full_init()

    def source_index(self, index: int) -> int:
        return self.dataset._get_ori_dataset_idx(index)

    def __len__(self) -> int:
        return len(self.dataset)


class _JoinedSource:
    """Items of concatenated datasets, each with its own pipeline.

    Video and caption indices continue from one dataset to the next; counts in
    ``metainfo`` are sums.
    """

    def __init__(self, sources: list[ItemSource]) -> None:
        self.item_sources = sources

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the first set, with the counts summed."""
        parts = [source.metainfo for source in self.item_sources]
        joined = dict(parts[0])
        for side in ('videos', 'captions'):
            own, published = f'num_{side}', f'published_{side}'
            joined[own] = sum(part[own] for part in parts)
            if any(published in part for part in parts):
                joined[published] = sum(
                    part.get(published, part[own]) for part in parts
                )
        if any('queries' in part for part in parts):
            joined['queries'] = sum(part.get('queries', 0) for part in parts)
        return joined

    @property
    def test_mode(self) -> bool:
        return any(source.test_mode for source in self.item_sources)

    @property
    def max_refetch(self) -> int:
        return max(source.max_refetch for source in self.item_sources)

    @property
    def items_are_videos(self) -> bool:
        return all(source.items_are_videos for source in self.item_sources)

    def full_init(self) -> None:
        """Load the annotations and compute the offset of each set."""
        for source in self.item_sources:
            source.full_init()
        parts = [source.metainfo for source in self.item_sources]
        self._ends = _running(map(len, self.item_sources))[1:]
        self._videos = _running(part['num_videos'] for part in parts)
        self._captions = _running(part['num_captions'] for part in parts)

    def __len__(self) -> int:
        return sum(map(len, self.item_sources))

    def count_captions(self, index: int) -> int:
        part, place = self._place(index)
        return self.item_sources[part].count_captions(place)

    def video_ids(self) -> list[str]:
        return [x for source in self.item_sources for x in source.video_ids()]

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline, with global indices."""
        part, place = self._place(index)
        item = self.item_sources[part].get_data_info(place)
        item['video_index'] += self._videos[part]
        item['caption_indices'] = [
            number + self._captions[part] for number in item['caption_indices']
        ]
        # remembers whose pipeline to use; a part may be a join itself
        item['joined_parts'] = (*item.get('joined_parts', ()), part)
        return item

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline of its own set."""
        *rest, part = item['joined_parts']
        item['joined_parts'] = tuple(rest)
        return self.item_sources[part].process(item)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the part of an item, and its index there."""
        part = bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)


def _running(counts: Iterable[int]) -> list[int]:
    return [0, *accumulate(counts)]


class _ForeignSource:
    """Items of a dataset from outside this package."""

    def __init__(self, dataset: Any, reader: str) -> None:
        self.dataset = dataset
        self.name = type(dataset).__name__
        missing = [
            name
            for name in ('get_data_info', '__len__')
            if not hasattr(type(dataset), name)
        ]
        if not missing and not callable(self._pipeline):
            missing = ['pipeline']
        if missing:
            raise TypeError(
                f'{reader} wraps a TextVideoDataset or another dataset with '
                "'get_data_info', '__len__' and a callable 'pipeline', but "
                f"got {self.name}, which has no '{missing[0]}'. "
                "Derive it from MMEngine's BaseDataset."
            )
        if isinstance(dataset, BaseDataset) and (
            type(dataset).prepare_data is not BaseDataset.prepare_data
        ):
            raise TypeError(
                f'{reader} sends items through the pipeline itself, so '
                f"'prepare_data' of {self.name} would not be "
                'called. Move what it does into a transform or into '
                "'get_data_info'."
            )
        #: The item that each loader worker is reading.
        self.current_items = CurrentItems()
        self._ids: list[str] | None = None
        self._shared: dict[int, list[str]] = {}

    @property
    def _pipeline(self) -> Any:
        """The callable that turns an item into inputs."""
        pipeline = getattr(self.dataset, 'pipeline', None)
        if pipeline is None:
            pipeline = getattr(self.dataset, 'process', None)
        return pipeline

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the dataset, with counts filled in."""
        counts = dict(
            num_videos=self._num_videos, num_captions=self._num_captions
        )
        return {**counts, **(getattr(self.dataset, 'metainfo', None) or {})}

    @property
    def test_mode(self) -> bool:
        return bool(getattr(self.dataset, 'test_mode', False))

    @property
    def max_refetch(self) -> int:
        return int(getattr(self.dataset, 'max_refetch', 0))

    @property
    def items_are_videos(self) -> bool:
        return len(set(self.video_ids())) == len(self)

    def full_init(self) -> None:
        """Load the annotation and check every item once."""
        if self._ids is not None:
            return
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()
        ids: list[str] = []
        self._counts: list[int] = []
        holders: dict[int, dict[str, None]] = {}
        self._num_videos = 0
        for index in range(len(self)):
            item = self.get_data_info(index)
            ids.append(item['video_id'])
            for number in item['caption_indices']:
                holders.setdefault(number, {})[item['video_id']] = None
            self._counts.append(len(item['captions']))
            self._num_videos = max(self._num_videos, item['video_index'] + 1)
        self._num_captions = max(holders, default=-1) + 1
        # an index in several items is one caption that matches them all;
        # wrappers renumber captions, so it must be stated by video id
        self._shared = {
            number: list(names)
            for number, names in holders.items()
            if len(names) > 1
        }
        #: Items that the pipeline dropped.
        self.lost_videos = LostVideos(len(self))
        self._ids = ids

    def __len__(self) -> int:
        return len(self.dataset)

    def count_captions(self, index: int) -> int:
        return self._counts[index]

    def video_ids(self) -> list[str]:
        self.full_init()
        return list(self._ids or ())

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a copy of an item after checking its keys."""
        item = self.dataset.get_data_info(index)
        self._check(item, f'Item {index} of {self.name}')
        # a copy, because wrappers modify it
        item = {'sample_idx': index, **item}
        if 'positives' not in item and not self._shared.keys().isdisjoint(
            item['caption_indices']
        ):
            item['positives'] = [
                list(self._shared.get(number, [item['video_id']]))
                for number in item['caption_indices']
            ]
        return item

    def _check(self, item: Any, where: str) -> None:
        if not isinstance(item, dict):
            raise TypeError(
                f'{where} must be a dict, but get_data_info returned '
                f'{type(item).__name__}.'
            )
        for key in ITEM_KEYS:
            if key not in item:
                raise KeyError(
                    f"{where} has no '{key}', but {sorted(map(str, item))}. "
                    f'Wrappers and metrics need {list(ITEM_KEYS)}; see '
                    'TextVideoDataset for their meaning.'
                )
        for key in ('captions', 'caption_indices'):
            if not isinstance(item[key], list | tuple):
                raise TypeError(
                    f"{where}: '{key}' must be a list, one entry for each "
                    f'caption, but got {type(item[key]).__name__}.'
                )
        if not isinstance(item['video_index'], Integral):
            raise TypeError(
                f"{where}: 'video_index' must be an int, the place of the "
                f'video in the set, but got {item["video_index"]!r}.'
            )
        if len(item['captions']) != len(item['caption_indices']):
            raise ValueError(
                f"{where}: 'captions' and 'caption_indices' must have equal "
                f'length, but got {len(item["captions"])} and '
                f'{len(item["caption_indices"])}.'
            )

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline; record it if it is dropped."""
        index = item['sample_idx']
        video_id, video = item['video_id'], item['video']
        with self.current_items.reading(index):
            result = self._pipeline(item)
        if result is None and self.lost_videos.add(index):
            print_log(
                f"Video '{video_id}' ({video}) is skipped "
                f'({len(self.lost_videos)} of {len(self)} items so far): the '
                f'pipeline of {self.name} returned None.',
                logger='current',
                # other ranks log errors only
                level=logging.ERROR,
            )
        return result
