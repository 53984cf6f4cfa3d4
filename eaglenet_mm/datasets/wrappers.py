"""Wrappers that make other items of videos with captions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from eaglenet_mm.registry import DATASETS

from .base_wrapper import RetrievalDatasetWrapper
from .text_video_dataset import TextVideoDataset


@DATASETS.register_module()
class CaptionExpansion(RetrievalDatasetWrapper):
    """One item for each pair of a video and one of its captions.

    The release trains so on MSR-VTT. Items are in the order of the file; a
    video without caption makes none.

    Args:
        dataset (dict | TextVideoDataset | RetrievalDatasetWrapper): What to
            wrap, or its config.
    """

    @property
    def items_are_videos(self) -> bool:
        """bool: Whether every video is one item; False."""
        return False

    def full_init(self) -> None:
        """Load the annotation and count the captions."""
        super().full_init()
        counts = [
            self.dataset.count_captions(index)
            for index in range(len(self.dataset))
        ]
        self._ends = np.cumsum(counts)  # one past the last pair of a video
        if not self._ends[-1]:
            raise ValueError(
                f'CaptionExpansion makes pairs, but none of the {len(counts)} '
                'videos has a caption. Look at the ann_file.'
            )

    def count_captions(self, index: int) -> int:
        """Return 1."""
        return 1

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a pair; see :class:`RetrievalDatasetWrapper`."""
        video = int(np.searchsorted(self._ends, index, side='right'))
        item = self.dataset.get_data_info(video)
        return _keep_captions(item, index - int(self._ends[video]))

    def __len__(self) -> int:
        return int(self._ends[-1])


@DATASETS.register_module()
class RandomCaption(RetrievalDatasetWrapper):
    """One item a video, with one of its captions, another in each epoch.

    The caption depends on the seed, the epoch and the number of the item
    alone: it is the same with any number of workers and after a resume. The
    epoch lies in shared memory, so that workers that live on see it change.

    Args:
        dataset (dict | TextVideoDataset | RetrievalDatasetWrapper): What to
            wrap, or its config.
        seed (int): Seed of the choice. Defaults to 0.

    Note:
        Training needs ``custom_hooks = [dict(type='DatasetEpochHook')]``.
    """

    def __init__(
        self,
        dataset: dict | TextVideoDataset | RetrievalDatasetWrapper,
        *,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self._epoch = torch.tensor(-1).share_memory_()
        super().__init__(dataset)

    def full_init(self) -> None:
        """Load the annotation, and refuse videos without caption."""
        super().full_init()
        bare = [
            index
            for index in range(len(self.dataset))
            if not self.dataset.count_captions(index)
        ]
        if bare:
            video_id = self.dataset.get_data_info(bare[0])['video_id']
            raise ValueError(
                f'RandomCaption draws a caption of every video, but '
                f"{len(bare)} have none, the first is '{video_id}'. Use "
                'CaptionExpansion, which leaves them out, or take them out of '
                'the ann_file.'
            )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins; see :class:`RetrievalDatasetWrapper`.

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
            index (int): Number of the item, from 0.

        Returns:
            dict: As :class:`TextVideoDataset` describes it.

        Raises:
            RuntimeError: If :meth:`set_epoch` was never called.
        """
        epoch = int(self._epoch)
        if epoch < 0:
            raise RuntimeError(
                'RandomCaption does not know the epoch, so it would choose '
                'the same captions again and again. Add '
                "custom_hooks = [dict(type='DatasetEpochHook')] to the "
                'config, or call set_epoch(0) before reading items.'
            )
        item = self.dataset.get_data_info(index)
        generator = np.random.default_rng([self.seed, epoch, index])
        return _keep_captions(
            item, int(generator.integers(len(item['captions'])))
        )


@DATASETS.register_module()
class ParagraphDataset(RetrievalDatasetWrapper):
    """All captions of a video as one, for training and evaluation on DiDeMo.

    They are joined by a space in file order, as the release does. The texts
    of the set are then the videos' paragraphs: ``caption_indices`` is
    ``[video_index]`` and ``metainfo['num_captions']`` the number of videos
    that have one. A paragraph fits the videos that all its captions fit.

    Args:
        dataset (dict | TextVideoDataset | RetrievalDatasetWrapper): What to
            wrap, or its config.
    """

    needs_videos = True

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, one caption a video."""
        metainfo = dict(self.dataset.metainfo)
        metainfo['num_captions'] = metainfo['num_videos'] - self._num_bare
        if 'published_videos' in metainfo:
            metainfo['published_captions'] = (
                metainfo['published_videos'] - self._num_bare
            )
        return metainfo

    def full_init(self) -> None:
        """Load the annotation and count the videos without caption."""
        super().full_init()
        if self.test_mode and self.dataset.metainfo.get('queries'):
            raise ValueError(
                'ParagraphDataset joins the captions of a video, but the '
                "ann_file has texts that stand with no video ('queries' of "
                'its header). Write each paragraph as one caption, and leave '
                'ParagraphDataset out.'
            )
        self._num_bare = sum(
            not self.dataset.count_captions(index)
            for index in range(len(self.dataset))
        )

    def count_captions(self, index: int) -> int:
        """Return 1, or 0 for a video without caption."""
        return min(1, self.dataset.count_captions(index))

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video with its paragraph."""
        item = self.dataset.get_data_info(index)
        if not item['captions']:
            return item
        item['captions'] = [' '.join(item['captions'])]
        item['caption_indices'] = [item['video_index']]
        if 'positives' in item:
            first, *others = item['positives']
            item['positives'] = [
                [x for x in first if all(x in other for other in others)]
            ]
        return item


@DATASETS.register_module()
class VideoSubset(RetrievalDatasetWrapper):
    """Some of the videos, for quick looks and ablations.

    Videos and captions are numbered anew from 0 and the counts in
    ``metainfo`` agree with that, so that the subset can be evaluated.
    ``metainfo['subset_of']`` keeps the number of videos of the whole.

    Args:
        dataset (dict | TextVideoDataset | RetrievalDatasetWrapper): What to
            wrap, or its config.
        indices (int | Sequence[int]): Numbers of the items to keep, without
            repeats, or how many of the first.

    Raises:
        ValueError: If a number does not exist or comes twice, or none is
            left.
    """

    needs_videos = True

    def __init__(
        self,
        dataset: dict | TextVideoDataset | RetrievalDatasetWrapper,
        indices: int | Sequence[int],
    ) -> None:
        self._indices = (
            list(range(indices))
            if isinstance(indices, int)
            else [int(index) for index in indices]
        )
        super().__init__(dataset)

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, with the subset's counts."""
        metainfo = self.dataset.metainfo
        whole = ('published_videos', 'published_captions')
        return {
            **{key: metainfo[key] for key in metainfo if key not in whole},
            'num_videos': len(self),
            'num_captions': int(self._starts[-1]),
            'subset_of': metainfo['num_videos'],
        }

    def full_init(self) -> None:
        """Load the annotation and number the captions anew."""
        super().full_init()
        length, kept = len(self.dataset), self._indices
        if (
            not kept
            or len(set(kept)) < len(kept)
            or not 0 <= min(kept) <= max(kept) < length
        ):
            raise ValueError(
                f'VideoSubset expects different items from 0 to {length - 1}, '
                f'at least one, but got {len(kept)}: {kept[:8]}. Change '
                "'indices'."
            )
        counts = [self.dataset.count_captions(index) for index in kept]
        self._starts = np.cumsum([0, *counts])

    def count_captions(self, index: int) -> int:
        """Return how many captions an item carries."""
        return self.dataset.count_captions(self._indices[index])

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video of the subset, numbered anew."""
        item = self.dataset.get_data_info(self._indices[index])
        start = int(self._starts[index])
        item['video_index'] = index
        item['caption_indices'] = list(
            range(start, start + len(item['captions']))
        )
        return item

    def __len__(self) -> int:
        return len(self._indices)


def _keep_captions(item: dict[str, Any], place: int) -> dict[str, Any]:
    """Keep one caption of an item."""
    item['captions'] = [item['captions'][place]]
    item['caption_indices'] = [item['caption_indices'][place]]
    if 'positives' in item:
        item['positives'] = [item['positives'][place]]
    return item
