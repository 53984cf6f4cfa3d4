"""Captions, ids and frames of an evaluation set by canonical index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eaglenet_mm.datasets.fetching import as_source
from eaglenet_mm.datasets.joined_parts import Part, mark_parts


class SetCatalogue:
    """Items of an evaluated dataset, possibly concatenated, by index."""

    def __init__(self, dataset: Any) -> None:
        check_dataset(dataset)
        # canonical video index -> dataset and item
        self._places: dict[int, tuple[Any, int]] = {}
        self._captions: dict[int, str] = {}
        first_video = first_caption = 0  # offsets of a concatenated part
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
        """Return captions by their canonical indices."""
        return [str(self._captions[index]) for index in indices]

    def frames(self, video_index: int) -> np.ndarray:
        """Read the real frames of a video again, as the model gets them.

        Returns RGB, uint8, shape ``(n, H, W, 3)``. Raises ValueError if there
        are none, and errors of the pipeline for a damaged video.
        """
        dataset, place = self._places[video_index]
        packed = dataset.process(dataset.get_data_info(place))
        if packed is None:
            raise ValueError('the dataset skips it, see the log')
        frames = np.asarray(packed['inputs']['frames'])  # (n, 3, H, W)
        if frames.dtype != np.uint8 or frames.ndim != 4 or not len(frames):
            raise ValueError(
                f'its frames are {frames.dtype} of shape {frames.shape}, not '
                'uint8 of shape (n, 3, H, W)'
            )
        return frames.transpose(0, 2, 3, 1)


def check_dataset(dataset: Any) -> None:
    """Refuse a dataset without ``get_data_info``, ``process`` or pipeline."""
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
                'Pictures of results need a dataset with captions that can '
                'read single videos again, such as TextVideoDataset or one of '
                f'its wrappers, but {type(part).__name__} has no '
                f"'{missing[0]}'."
            )
