"""Dataset wrappers that regroup videos and captions into other items.

A video without captions is a distractor. In training, wrappers drop it and log
the count; in evaluation (``test_mode``) it stays in the gallery.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from eaglenet_mm.datasets.draws import current_draw
from eaglenet_mm.datasets.fetching import RearrangedItems, as_source, fetch
from eaglenet_mm.datasets.shared_records import tell_epoch
from eaglenet_mm.registry import DATASETS, SCOPE


class RetrievalDatasetWrapper(RearrangedItems):
    """Base of the wrappers, which can be nested.

    A subclass selects items in :meth:`number_items` and changes them in
    ``get_data_info``. Everything else is taken from the wrapped dataset.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): Dataset to
            wrap, or its config: :class:`TextVideoDataset` or any dataset with
            ``get_data_info``, ``__len__`` and ``pipeline`` whose items have
            the same keys. Concatenated and repeated datasets work too.

    Raises:
        TypeError: If the dataset lacks these, or has pairs as items while the
            wrapper needs whole videos.
        KeyError: If an item lacks a key.

    Example:
        >>> class Shouting(RetrievalDatasetWrapper):
        ...     def get_data_info(self, index):
        ...         item = super().get_data_info(index)
        ...         item['captions'] = [x.upper() for x in item['captions']]
        ...         return item
        >>> Shouting(dataset).get_data_info(1)['captions']
        ['A CAT SLEEPS']
    """

    #: Whether the wrapper needs whole videos as items.
    needs_videos = False

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build({'_scope_': SCOPE, **dataset})
        self.dataset = dataset
        super().__init__(as_source(dataset, type(self).__name__))
        self._numbers: Sequence[int] | np.ndarray | None = None
        self.source.full_init()
        if self.needs_videos and not self.source.items_are_videos:
            raise TypeError(
                f'{type(self).__name__} needs items that are whole videos, '
                f'but got {type(dataset).__name__} with pairs. Put '
                f'CaptionExpansion around {type(self).__name__} instead.'
            )
        self._numbers = self.number_items()

    def number_items(self) -> Sequence[int] | np.ndarray | None:
        """Select the items, once the annotation is loaded.

        Returns:
            Sequence[int] | ndarray | None: The index of the wrapped item
            behind each item; None to keep all of them in order.
        """
        return None

    def source_index(self, index: int) -> int:
        """Return the index of the wrapped item behind an item."""
        return index if self._numbers is None else int(self._numbers[index])

    def set_epoch(self, epoch: int) -> None:
        """Announce an epoch to the wrapped datasets.

        Args:
            epoch (int): Number of the epoch, from 0.
        """
        tell_epoch(self.dataset, epoch)

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of an item, for ``ClassBalancedDataset``."""
        return self.dataset.get_cat_ids(self.source_index(index))

    def __len__(self) -> int:
        return len(self.source if self._numbers is None else self._numbers)

    def __getitem__(self, index: int) -> Any:
        return fetch(self, index, self.max_refetch)

    def _items_with_captions(self) -> list[int]:
        """List the wrapped items that have captions; log how many have not."""
        length = len(self.source)
        kept = [x for x in range(length) if self.source.count_captions(x)]
        name = type(self).__name__
        if not kept:
            raise ValueError(
                f'{name} needs items with captions, but none of the '
                f'{length} items of {type(self.dataset).__name__} has '
                'one. Check the annotation file.'
            )
        if len(kept) < length:
            print_log(
                f'{name} leaves out {length - len(kept)} of {length} '
                'items: they are videos without captions.',
                logger='current',
                level=logging.WARNING,
            )
        return kept


@DATASETS.register_module()
class CaptionExpansion(RetrievalDatasetWrapper):
    """One item per pair of video and caption, in file order.

    The release trains this way on MSR-VTT.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): See
            :class:`RetrievalDatasetWrapper`.

    Example:
        >>> pairs = CaptionExpansion(dataset)
        >>> [pairs.get_data_info(n)['captions'] for n in range(len(pairs))]
        [['a dog runs'], ['a brown dog'], ['a cat sleeps']]
    """

    items_are_videos = False

    def number_items(self) -> np.ndarray:
        """Select the pairs; see :class:`RetrievalDatasetWrapper`."""
        if not self.test_mode:
            self._items_with_captions()  # logs what is left out
        length = len(self.source)
        found = [self.source.count_captions(x) for x in range(length)]
        counts = np.maximum(found, 1 if self.test_mode else 0)
        self._starts = np.cumsum(counts) - counts  # first pair of a video
        return np.repeat(np.arange(length), counts)

    def count_captions(self, index: int) -> int:
        """Return 1, or 0 for a video without captions in evaluation."""
        return min(super().count_captions(index), 1)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a pair; see :class:`RetrievalDatasetWrapper`."""
        item = super().get_data_info(index)
        if not item['captions']:
            return item
        start = self._starts[self.source_index(index)]
        return _keep_caption(item, index - int(start))


@DATASETS.register_module()
class RandomCaption(RetrievalDatasetWrapper):
    """One item per video, with a random caption that changes at each draw.

    The caption is a function of the seed, the item and the draw: the number of
    the pass over the dataset and, within a pass (as with ``RepeatDataset``),
    the index into the outermost dataset. It does not depend on the number of
    workers and processes, and resuming reproduces it, in iteration-based
    training too. Without repeats, a pass is an epoch.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): See
            :class:`RetrievalDatasetWrapper`.
        seed (int): Random seed. Default: 0.

    Note:
        Training needs ``custom_hooks = [dict(type='DatasetEpochHook')]``,
        which calls :func:`~eaglenet_mm.datasets.number_draws` on the loader.
        Where draws are not numbered, :meth:`set_epoch` sets the pass, in
        shared memory so that persistent workers see it.

    Example:
        >>> drawn = RandomCaption(dataset)
        >>> drawn.set_epoch(0)
        >>> [len(drawn.get_data_info(n)['captions']) for n in range(2)]
        [1, 1]
    """

    reads_draws = True

    def __init__(self, dataset: Any, *, seed: int = 0) -> None:
        self.seed = seed
        self._epoch = torch.tensor(-1).share_memory_()
        super().__init__(dataset)

    def number_items(self) -> list[int]:
        """Drop videos without captions."""
        return self._items_with_captions()

    def set_epoch(self, epoch: int) -> None:
        """Announce an epoch; see :class:`RetrievalDatasetWrapper`.

        Raises:
            ValueError: If ``epoch`` is negative.
        """
        if epoch < 0:
            raise ValueError(
                f'The epoch must be at least 0, but got {epoch}. Count '
                'epochs from 0.'
            )
        super().set_epoch(epoch)
        self._epoch.fill_(epoch)

    def count_captions(self, index: int) -> int:
        """Return 1."""
        return 1

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video with one caption.

        Args:
            index (int): Index of the item, from 0.

        Returns:
            dict: An item as described in :class:`TextVideoDataset`.

        Raises:
            RuntimeError: If draws are not numbered and :meth:`set_epoch` was
                not called.
                :meth:`set_epoch` was called.
        """
        item = super().get_data_info(index)
        generator = np.random.default_rng(self._draw(index))
        return _keep_caption(
            item, int(generator.integers(len(item['captions'])))
        )

    def _draw(self, index: int) -> list[int]:
        """Seed material unique to a draw of an item."""
        draw = current_draw()
        if draw is None:
            epoch = int(self._epoch)
            if epoch < 0:
                raise RuntimeError(
                    'RandomCaption does not know the current pass over the '
                    'data, so it would always choose the same captions. Add '
                    "custom_hooks = [dict(type='DatasetEpochHook')] to the "
                    'config, or call number_draws(loader) or set_epoch(0) '
                    'before reading items. In iteration-based training the '
                    'batch sampler must pass on the index objects of its '
                    'sampler unchanged.'
                )
            return [self.seed, epoch, index]
        first = [self.seed, draw.pass_number, index]
        if draw == index and not draw.repeat:
            return first
        # drawn through a wrapper that may repeat items
        return [*first, draw.repeat, int(draw)]


@DATASETS.register_module()
class ParagraphDataset(RetrievalDatasetWrapper):
    """All captions of a video joined into one paragraph, as for DiDeMo.

    Captions are joined by spaces in file order, as in the release. Each
    paragraph counts as one caption: ``caption_indices`` skips videos without
    captions, and ``metainfo['num_captions']`` is the number of videos with
    captions. A paragraph matches the videos that all of its captions match.
    It has no ``moments``: it tells the whole clip, no part of which is right
    for all of its sentences. To measure moments, leave this wrapper out.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): See
            :class:`RetrievalDatasetWrapper`.

    Raises:
        ValueError: If an evaluation set has texts without a video.

    Example:
        >>> ParagraphDataset(dataset).get_data_info(0)['captions']
        ['a dog runs a brown dog']
    """

    needs_videos = True

    def number_items(self) -> Sequence[int]:
        """Find the videos without captions."""
        if self.test_mode and self.source.metainfo.get('queries'):
            raise ValueError(
                'ParagraphDataset joins the captions of a video, but the '
                "ann_file has texts without a video ('queries' in "
                'its header). Write each paragraph as one caption, and leave '
                'ParagraphDataset out.'
            )
        everything = range(len(self.source))
        silent = [x for x in everything if not self.source.count_captions(x)]
        self._silent = np.array(
            sorted(self.source.get_data_info(x)['video_index'] for x in silent)
        )
        return everything if self.test_mode else self._items_with_captions()

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, with one caption per video."""
        metainfo = dict(self.source.metainfo)
        for captions, videos in (
            ('num_captions', 'num_videos'),
            ('published_captions', 'published_videos'),
        ):
            if videos in metainfo:
                metainfo[captions] = metainfo[videos] - len(self._silent)
        return metainfo

    def count_captions(self, index: int) -> int:
        """Return 1, or 0 for a video without captions in evaluation."""
        return min(super().count_captions(index), 1)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video with its paragraph."""
        item = super().get_data_info(index)
        if item['captions']:
            before = int(np.searchsorted(self._silent, item['video_index']))
            item.pop('moments', None)
            item['captions'] = [' '.join(item['captions'])]
            item['caption_indices'] = [item['video_index'] - before]
            if 'positives' in item:
                first, *others = item['positives']
                item['positives'] = [
                    [x for x in first if all(x in other for other in others)]
                ]
        return item


@DATASETS.register_module()
class VideoSubset(RetrievalDatasetWrapper):
    """Some of the videos, for quick runs and ablations.

    Videos, captions and the counts in ``metainfo`` are renumbered, so the
    subset can be evaluated. ``metainfo['subset_of']`` is the number of videos
    of the whole set.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): See
            :class:`RetrievalDatasetWrapper`.
        indices (int | Sequence[int]): Distinct indices of the items to keep,
            or the number of items to keep from the start.

    Raises:
        ValueError: If an index is out of range or repeated, or there is none.

    Example:
        >>> VideoSubset(dataset, [1]).get_data_info(0)['captions']
        ['a cat sleeps']
    """

    needs_videos = True

    def __init__(self, dataset: Any, indices: int | Sequence[int]) -> None:
        self._indices = (
            list(range(indices))
            if isinstance(indices, int)
            else [int(index) for index in indices]
        )
        super().__init__(dataset)

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, with the subset's counts."""
        metainfo = self.source.metainfo
        whole = ('published_videos', 'published_captions')
        return {
            **{key: metainfo[key] for key in metainfo if key not in whole},
            'num_videos': len(self),
            'num_captions': int(self._starts[-1]),
            'subset_of': metainfo['num_videos'],
        }

    def number_items(self) -> list[int]:
        """Renumber the captions."""
        length, kept = len(self.source), self._indices
        if (
            not kept
            or len(set(kept)) < len(kept)
            or not 0 <= min(kept) <= max(kept) < length
        ):
            raise ValueError(
                f'VideoSubset needs different items from 0 to {length - 1}, '
                f'at least one, but got {len(kept)}: {kept[:8]}. Change '
                "'indices'."
            )
        counts = [self.source.count_captions(index) for index in kept]
        self._starts = np.cumsum([0, *counts])
        return kept

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video of the subset, renumbered."""
        item = super().get_data_info(index)
        start = int(self._starts[index])
        item['video_index'] = index
        item['caption_indices'] = list(
            range(start, start + len(item['captions']))
        )
        return item


def _keep_caption(item: dict[str, Any], place: int) -> dict[str, Any]:
    """Keep a single caption of an item."""
    for key in ('captions', 'caption_indices', 'positives', 'moments'):
        if key in item:
            item[key] = [item[key][place]]
    return item
