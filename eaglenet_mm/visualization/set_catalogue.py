"""Captions, ids and frames of an evaluation set, by canonical index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eaglenet_mm.datasets.fetching import as_source
from eaglenet_mm.datasets.joined_parts import Part, mark_parts


class SetCatalogue:
    """Finds the items of a data set by the indices of an evaluation.

    Args:
        dataset (Any): The set that was evaluated: any with
            ``get_data_info`` and ``pipeline`` or ``process``, or several of
            them, joined.

    Raises:
        TypeError: If one lacks one of these.
    """

    def __init__(self, dataset: Any) -> None:
        check_dataset(dataset)
        # canonical index -> data set and item
        self._places: dict[int, tuple[Any, int]] = {}
        self._captions: dict[int, str] = {}
        first_video = first_caption = 0  # of a part of a joined set
        parts = mark_parts(dataset)
        for part in parts or [Part('', dataset)]:
            inner = part.dataset
            if not hasattr(inner, 'process'):
                inner = as_source(inner, 'A page of results')
                inner.full_init()
            for place in range(len(inner)):
                item = inner.get_data_info(place)
                self._places.setdefault(
                    first_video + item['video_index'], (inner, place)
                )
                indices = [first_caption + i for i in item['caption_indices']]
                self._captions.update(
                    zip(indices, item['captions'], strict=True)
                )
            if parts:
                num_videos, num_captions = part.sizes()
                first_video += num_videos or 0
                first_caption += num_captions or 0

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
        dataset, place = self._places[video_index]
        packed = dataset.process(dataset.get_data_info(place))
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
        dataset: Of the dataloader; of a joined one every part is looked at.

    Raises:
        TypeError: If it does not give items by ``get_data_info``, and frames
            by ``process`` or ``pipeline``.
    """
    for part in [x.dataset for x in mark_parts(dataset)] or [dataset]:
        missing = [
            name
            for name in ('get_data_info', 'process')
            if not callable(getattr(part, name, None))
        ]
        if missing == ['process']:
            as_source(part, 'A page of results')
        elif missing:
            raise TypeError(
                'Pictures of results need a data set that tells its captions '
                'and reads single videos again, such as TextVideoDataset or '
                f'one of its wrappers, but {type(part).__name__} has no '
                f"'{missing[0]}'."
            )
