"""What the wrappers of data sets have in common."""

import logging
from typing import Any

from mmengine.logging import print_log

from eaglenet_mm.registry import DATASETS, SCOPE

from .fetching import ItemSource, as_source, fetch
from .shared_records import tell_epoch


class RetrievalDatasetWrapper:
    """Base of the wrappers; they also wrap each other.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): What to wrap,
            or its config: :class:`TextVideoDataset`, or any data set with
            ``get_data_info``, ``__len__`` and ``pipeline`` whose items have
            the same keys, joined and repeated ones included.

    Raises:
        TypeError: If it is something else, or gives pairs to a wrapper that
            needs whole videos.
        KeyError: If an item lacks a key.
    """

    #: Whether the wrapper makes sense around whole videos only.
    needs_videos = False

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build({'_scope_': SCOPE, **dataset})
        self.dataset = dataset
        self.source: ItemSource = as_source(dataset, type(self).__name__)
        self.item_sources = [self.source]
        self._numbered = False
        self.source.full_init()
        if self.needs_videos and not self.source.items_are_videos:
            raise TypeError(
                f'{type(self).__name__} needs items that are whole videos, '
                f'but got {type(dataset).__name__} with pairs. Put '
                f'CaptionExpansion around {type(self).__name__} instead.'
            )
        self.full_init()

    @property
    def items_are_videos(self) -> bool:
        """bool: Whether every video is one item."""
        return self.source.items_are_videos

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, as it is for these items."""
        return self.source.metainfo

    @property
    def test_mode(self) -> bool:
        """bool: Whether the set is evaluated."""
        return self.source.test_mode

    @property
    def max_refetch(self) -> int:
        """int: Items tried in the place of an unreadable one."""
        return self.source.max_refetch

    def full_init(self) -> None:
        """Load the annotation, if that is still to be done."""
        self.source.full_init()
        if not self._numbered:
            self.number_items()
            self._numbered = True

    def number_items(self) -> None:
        """Work out which items there are, once the annotation is loaded."""

    def set_epoch(self, epoch: int) -> None:
        """Tell the data sets and wrappers inside which epoch begins.

        Args:
            epoch (int): Number of the epoch, from 0.
        """
        tell_epoch(self.dataset, epoch)

    def count_captions(self, index: int) -> int:
        """Return how many captions an item carries."""
        return self.source.count_captions(index)

    def video_ids(self) -> list[str]:
        """Return the id of the video of each item."""
        return self.source.video_ids()

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of an item, for ``ClassBalancedDataset``."""
        return self.dataset.get_cat_ids(index)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline.

        Args:
            index (int): Number of the item, from 0.

        Returns:
            dict: As :class:`TextVideoDataset` describes it.
        """
        return self.source.get_data_info(index)

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline of the wrapped data set."""
        return self.source.process(item)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return fetch(self, index, self.max_refetch)


def items_with_captions(wrapper: RetrievalDatasetWrapper) -> list[int]:
    """List the wrapped items that have a caption, and log the others.

    Args:
        wrapper (RetrievalDatasetWrapper): Its source is looked at.

    Returns:
        list[int]: Numbers of items, ascending.

    Raises:
        ValueError: If no item has a caption.
    """
    source = wrapper.source
    kept = [x for x in range(len(source)) if source.count_captions(x)]
    name = type(wrapper).__name__
    if not kept:
        raise ValueError(
            f'{name} needs items with captions, but none of the '
            f'{len(source)} items of {type(wrapper.dataset).__name__} has '
            'one. Check the annotation file.'
        )
    if len(kept) < len(source):
        print_log(
            f'{name} leaves out {len(source) - len(kept)} of {len(source)} '
            'items: they are videos without captions.',
            logger='current',
            level=logging.WARNING,
        )
    return kept
