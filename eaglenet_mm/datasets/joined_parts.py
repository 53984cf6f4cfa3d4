"""The parts of concatenated datasets, marked in every item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eaglenet_mm.datasets.wrappers import RetrievalDatasetWrapper

_STATED = ('dataset', 'split', 'protocol')


@dataclass(frozen=True)
class Part:
    """One dataset of a concatenation."""

    #: Unique name, used in metric keys.
    name: str
    #: The dataset, or its wrapper inside the concatenation.
    dataset: Any

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Metainfo of the dataset, or an empty dict."""
        return dict(getattr(self.dataset, 'metainfo', None) or {})

    def sizes(self) -> tuple[int | None, int | None]:
        """Return the numbers of videos and captions, None where unknown."""
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
    """A dataset whose packed samples carry the number of its part.

    All other attributes are those of the dataset.
    """

    def __init__(self, dataset: Any, number: int) -> None:
        self.dataset = dataset
        self.part_number = number

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        sample = item.get('data_samples') if isinstance(item, dict) else None
        if sample is None:  # packed by a wrapper around the concatenation
            return item
        # a copy: a dataset may return the same object again
        sample = sample.clone()
        sample.set_metainfo({'part': self.part_number})
        return {**item, 'data_samples': sample}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # copying and pickling must see this object, not the dataset
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def mark_parts(dataset: Any) -> list[Part]:
    """Make every item of a concatenated dataset carry its part.

    A concatenation is anything with a list ``datasets``, such as the
    ``ConcatDataset`` of MMEngine and torch. It may be nested, also inside
    wrappers that have a ``dataset``, such as ``RepeatDataset``. Its datasets
    are replaced by :class:`MarkedPart`, before the loader is first iterated.
    A dataset that occurs twice is one part whose items come twice. The result
    is empty if nothing is concatenated.
    """
    numbers: dict[int, int] = {}
    parts: list[Any] = []
    for join, place in _places(dataset):
        part = join[place]
        if isinstance(part, MarkedPart):  # marked by another loop
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
    """Find the innermost parts: each one's list and position in it."""
    if isinstance(dataset, RetrievalDatasetWrapper):
        return  # does not call ``__getitem__`` of what it wraps
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
    """Name parts by dataset, split and protocol as needed, or number them."""
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
    """Join words; a slash would start a new level of the metric key."""
    return re.sub(r'[/\s]+', '-', '-'.join(words))


def joined_metainfo(parts: Sequence[Part]) -> dict[str, Any]:
    """Describe several parts as one dataset.

    Differing values of ``dataset``, ``split`` and ``protocol`` are joined with
    `` + ``. ``num_videos`` and ``num_captions`` are sums, of the published
    counts where given, and left out if a part does not know its own.
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
