"""What the wrappers of data sets have in common."""

from typing import Any

from eaglenet_mm.registry import DATASETS, SCOPE

from .fetching import fetch
from .text_video_dataset import TextVideoDataset


class RetrievalDatasetWrapper:
    """Base of the wrappers; they also wrap each other.

    Args:
        dataset (dict | TextVideoDataset | RetrievalDatasetWrapper): What to
            wrap, or its config.

    Raises:
        TypeError: If it is something else, or gives pairs to a wrapper that
            needs whole videos.
    """

    #: Whether the wrapper makes sense around whole videos only.
    needs_videos = False

    def __init__(
        self, dataset: 'dict | TextVideoDataset | RetrievalDatasetWrapper'
    ) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build({'_scope_': SCOPE, **dataset})
        if not isinstance(dataset, TextVideoDataset | RetrievalDatasetWrapper):
            raise TypeError(
                f'{type(self).__name__} wraps a TextVideoDataset or one of '
                f'its wrappers, but got {type(dataset).__name__}. Wrap '
                'innermost, directly around the data set.'
            )
        if self.needs_videos and not dataset.items_are_videos:
            raise TypeError(
                f'{type(self).__name__} needs items that are whole videos, '
                f'but got {type(dataset).__name__} with pairs. Put '
                f'CaptionExpansion around {type(self).__name__} instead.'
            )
        self.dataset = dataset
        self.full_init()

    @property
    def items_are_videos(self) -> bool:
        """bool: Whether every video is one item."""
        return self.dataset.items_are_videos

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, as it is for these items."""
        return self.dataset.metainfo

    @property
    def test_mode(self) -> bool:
        """bool: Whether the set is evaluated."""
        return self.dataset.test_mode

    @property
    def max_refetch(self) -> int:
        """int: Items tried in the place of an unreadable one."""
        return self.dataset.max_refetch

    def full_init(self) -> None:
        """Load the annotation, if that is still to be done."""
        self.dataset.full_init()

    def set_epoch(self, epoch: int) -> None:
        """Tell every wrapper inside which epoch begins.

        Args:
            epoch (int): Number of the epoch, from 0.
        """
        if isinstance(self.dataset, RetrievalDatasetWrapper):
            self.dataset.set_epoch(epoch)

    def count_captions(self, index: int) -> int:
        """Return how many captions an item carries."""
        return self.dataset.count_captions(index)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline.

        Args:
            index (int): Number of the item, from 0.

        Returns:
            dict: As :class:`TextVideoDataset` describes it.
        """
        return self.dataset.get_data_info(index)

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline of the wrapped data set."""
        return self.dataset.process(item)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return fetch(self, index, self.max_refetch)
