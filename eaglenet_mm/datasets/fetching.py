"""How data sets and wrappers get an item through the pipeline."""

from typing import Any, Protocol


class ItemSource(Protocol):
    """What data sets and wrappers have in common."""

    def __len__(self) -> int:
        """Return the number of items."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return an item before the pipeline."""

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline."""


def fetch(source: ItemSource, index: int, max_refetch: int) -> Any:
    """Get an item, or the next one that the pipeline does not drop.

    Which item stands in for a dropped one depends on the index alone, not on
    a random state: runs repeat themselves with any number of workers.

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
    for place in range(index % length, index % length + max_refetch + 1):
        result = source.process(source.get_data_info(place % length))
        if result is not None:
            return result
    raise RuntimeError(
        f'The pipeline gave nothing for item {index} and the {max_refetch} '
        'items after it. Check the videos named in the log, or raise '
        "'max_refetch'."
    )
