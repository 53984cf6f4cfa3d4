"""Captions, ids and frames of an evaluation set, by canonical index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eaglenet_mm.datasets.fetching import as_source


class SetCatalogue:
    """Finds the items of a data set by the indices of an evaluation.

    Args:
        dataset (Any): The set that was evaluated: any with
            ``get_data_info`` and ``pipeline`` or ``process``.

    Raises:
        TypeError: If it lacks one.
    """

    def __init__(self, dataset: Any) -> None:
        check_dataset(dataset)
        self.metainfo = dict(getattr(dataset, 'metainfo', None) or {})
        if not hasattr(dataset, 'process'):
            dataset = as_source(dataset, 'A page of results')
            dataset.full_init()
        self.dataset = dataset
        self._places: dict[int, int] = {}  # canonical index -> item
        self._captions: dict[int, str] = {}
        for place in range(len(dataset)):
            item = dataset.get_data_info(place)
            self._places.setdefault(item['video_index'], place)
            self._captions.update(
                zip(item['caption_indices'], item['captions'], strict=True)
            )

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return captions by their canonical indices.

        Args:
            indices (Sequence[int]): Of the evaluation.

        Returns:
            list[str]: One sentence each.
        """
        return [str(self._captions[index]) for index in indices]

    def frames(self, video_index: int) -> np.ndarray:
        """Read the frames of a video again, as the model gets them.

        Args:
            video_index (int): Canonical index.

        Returns:
            np.ndarray: RGB, uint8, after resizing and cropping, shape
            ``(n, H, W, 3)`` with n the real frames.

        Raises:
            Exception: What the pipeline raises for a video that cannot be
                read.
            ValueError: If the pipeline gives no frames.
        """
        item = self.dataset.get_data_info(self._places[video_index])
        packed = self.dataset.process(item)
        if packed is None:
            raise ValueError('the data set skips it, see the log')
        frames = np.asarray(packed['inputs']['frames'])  # (n, 3, H, W)
        if frames.dtype != np.uint8 or frames.ndim != 4 or not len(frames):
            raise ValueError(
                f'its frames are {frames.dtype} of shape {frames.shape}, not '
                'uint8 of shape (n, 3, H, W)'
            )
        return frames.transpose(0, 2, 3, 1)


def check_dataset(dataset: Any) -> None:
    """Refuse a data set whose items cannot be looked at.

    Args:
        dataset: Of the dataloader.

    Raises:
        TypeError: If it does not give items by ``get_data_info``, and frames
            by ``process`` or ``pipeline``.
    """
    missing = [
        name
        for name in ('get_data_info', 'process')
        if not callable(getattr(dataset, name, None))
    ]
    if missing == ['process']:
        as_source(dataset, 'A page of results')
    elif missing:
        raise TypeError(
            'Pictures of results need a data set that tells its captions and '
            'reads single videos again, such as TextVideoDataset or one of '
            f'its wrappers, but {type(dataset).__name__} has no '
            f"'{missing[0]}'."
        )
