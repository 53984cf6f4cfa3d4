"""How data sets and wrappers get an item through the pipeline."""

from typing import Any, Protocol

import numpy as np


class ItemSource(Protocol):
    """What data sets and wrappers have in common."""

    def __len__(self) -> int:
        """Return the number of items."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline."""

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline."""


def fetch(source: ItemSource, index: int, max_refetch: int) -> Any:
    """Get an item, or another one in its place if the pipeline drops it.

    Which item stands in for a dropped one depends on the index alone, not on
    a random state: runs repeat themselves with any number of workers. Stand-
    ins are spread over the set, so that a block of lost videos does not become
    many copies of the video behind it.

    Args:
        source (ItemSource): Data set or wrapper.
        index (int): Number of the item; negative ones count from the end.
        max_refetch (int): Items tried after the first.

    Returns:
        Any: What the pipeline returns.

    Raises:
        IndexError: If there is no such item.
        RuntimeError: If the pipeline drops all items tried.
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
