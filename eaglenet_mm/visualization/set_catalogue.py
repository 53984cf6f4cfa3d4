"""Captions, ids and frames of an evaluation set, by canonical index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eaglenet_mm.datasets.fetching import as_source
from eaglenet_mm.datasets.joined_parts import Part, mark_parts


class SetCatalogue:
    """Items of an evaluated data set, or of several joined, by their index."""

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
        """Captions by their canonical indices."""
        return [str(self._captions[index]) for index in indices]

    def frames(self, video_index: int) -> np.ndarray:
        """Read the real frames of a video again, as the model gets them.

        Returns RGB, uint8, shape ``(n, H, W, 3)``; raises ValueError without
        frames, and what the pipeline raises for a damaged video.
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
    """Refuse a set without ``get_data_info``, and ``process`` or pipeline."""
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
