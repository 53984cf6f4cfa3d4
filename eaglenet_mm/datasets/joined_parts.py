"""The parts of joined data sets, told apart in every item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eaglenet_mm.datasets.wrappers import RetrievalDatasetWrapper

_STATED = ('dataset', 'split', 'protocol')


@dataclass(frozen=True)
class Part:
    """One data set within a joined one."""

    #: Different from that of all others; stands in metric keys.
    name: str
    #: The data set, or what wraps it within the join.
    dataset: Any

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: What the data set says of itself."""
        return dict(getattr(self.dataset, 'metainfo', None) or {})

    def sizes(self) -> tuple[int | None, int | None]:
        """Tell how many numbers videos and captions of this part may use.

        None where the data set does not tell.
        """
        meta = self.metainfo
        known = meta.get('num_videos'), meta.get('num_captions')
        read = getattr(self.dataset, 'get_data_info', None)
        if None not in known or not callable(read):
            return known
        items: list[Any] = [read(place) for place in range(len(self.dataset))]
        if not all(
            {'video_index', 'caption_indices'} <= set(i) for i in items
        ):
            return known
        captions = [c for item in items for c in item['caption_indices']]
        return (
            1 + max((item['video_index'] for item in items), default=-1),
            1 + max(captions, default=-1),
        )


class MarkedPart:
    """A data set whose packed items say which part of a join they are from.

    Everything else is that of the data set.
    """

    def __init__(self, dataset: Any, number: int) -> None:
        self.dataset = dataset
        self.part_number = number

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        sample = item.get('data_samples') if isinstance(item, dict) else None
        if sample is None:  # packed by what wraps the join
            return item
        # a copy: a data set may hand out one object again and again
        sample = sample.clone()
        sample.set_metainfo({'part': self.part_number})
        return {**item, 'data_samples': sample}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # what copying and pickling ask for is of this object
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def mark_parts(dataset: Any) -> list[Part]:
    """Let every item of a joined data set say which part it is from.

    Joined is what holds a list ``datasets``, as ``ConcatDataset`` of MMEngine
    and of torch do; joins may lie in each other and within wrappers that have
    a ``dataset``, such as ``RepeatDataset``. Data sets in joins are replaced
    by :class:`MarkedPart`, before the first iteration of their loader. One
    that stands in a join twice is one part, whose items come twice. There is
    none if nothing is joined.
    """
    numbers: dict[int, int] = {}
    parts: list[Any] = []
    for join, place in _places(dataset):
        part = join[place]
        if isinstance(part, MarkedPart):  # by another loop on the same set
            part = part.dataset
        number = numbers.setdefault(id(part), len(numbers))
        if number == len(parts):
            parts.append(part)
        join[place] = MarkedPart(part, number)
    if len(parts) < 2:
        return []
    return [
        Part(name, part)
        for name, part in zip(_names(parts), parts, strict=True)
    ]


def _places(dataset: Any) -> Iterator[tuple[list, int]]:
    """Find the innermost parts: the list that each stands in, and where."""
    if isinstance(dataset, RetrievalDatasetWrapper):
        return  # reads past the items of what it wraps
    join = getattr(dataset, 'datasets', None)
    if isinstance(join, list):
        for place, part in enumerate(join):
            if isinstance(part, MarkedPart) or not any(_places(part)):
                yield join, place
            else:
                yield from _places(part)
    elif getattr(dataset, 'dataset', None) is not None:
        yield from _places(dataset.dataset)


def _names(parts: Sequence[Any]) -> list[str]:
    """Name parts by what tells them apart: set, split, protocol, or place."""
    metas = [getattr(part, 'metainfo', None) or {} for part in parts]
    for depth in range(1, len(_STATED) + 1):
        names = [
            _plain(str(meta.get(key, 'part')) for key in _STATED[:depth])
            for meta in metas
        ]
        if len(set(names)) == len(names):
            return names
    return [
        _plain([str(meta.get('dataset', 'part')), str(number)])
        for number, meta in enumerate(metas, 1)
    ]


def _plain(words: Iterable[str]) -> str:
    """Join words; a slash would end a level of the metric's key."""
    return re.sub(r'[/\s]+', '-', '-'.join(words))


def joined_metainfo(parts: Sequence[Part]) -> dict[str, Any]:
    """Describe the whole of some parts.

    ``dataset``, ``split`` and ``protocol`` are joined by `` + `` where they
    differ; ``num_videos`` and ``num_captions`` are sums (of the published
    ones, where a part has them), left out if a part does not tell.
    """
    metas = [part.metainfo for part in parts]
    whole: dict[str, Any] = {}
    for key in _STATED:
        values = dict.fromkeys(str(meta.get(key, 'unknown')) for meta in metas)
        whole[key] = ' + '.join(values)
    for place, key in enumerate(('videos', 'captions')):
        counts = [
            part.metainfo.get(f'published_{key}', part.sizes()[place])
            for part in parts
        ]
        if None not in counts:
            whole[f'num_{key}'] = sum(counts)
    return whole
