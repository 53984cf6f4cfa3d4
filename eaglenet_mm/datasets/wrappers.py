"""Wrappers that make other items of videos with captions.

A video without captions is a distractor: training cannot use it, and the
wrappers leave it out with a count in the log; in an evaluation (``test_mode``)
it stays in the gallery, as an item without text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from eaglenet_mm.registry import DATASETS

from .base_wrapper import RetrievalDatasetWrapper, items_with_captions
from .draws import current_draw


@DATASETS.register_module()
class CaptionExpansion(RetrievalDatasetWrapper):
    """One item for each pair of a video and one of its captions.

    The release trains so on MSR-VTT. Items are in the order of the file; a
    video without caption makes none.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): What to wrap,
            or its config; see :class:`RetrievalDatasetWrapper`.
    """

    @property
    def items_are_videos(self) -> bool:
        """bool: Whether every video is one item; False."""
        return False

    def number_items(self) -> None:
        """Count the captions."""
        if not self.test_mode:
            items_with_captions(self)
        counts = [
            self.source.count_captions(index)
            for index in range(len(self.source))
        ]
        least = 1 if self.test_mode else 0
        self._num_items = [max(count, least) for count in counts]
        self._ends = np.cumsum(self._num_items)  # one past the last pair

    def count_captions(self, index: int) -> int:
        """Return 1, or 0 for a video without captions in an evaluation."""
        return min(self.source.count_captions(self._video(index)), 1)

    def video_ids(self) -> list[str]:
        """Return the id of the video of each pair."""
        return [
            video_id
            for video_id, count in zip(
                self.source.video_ids(), self._num_items, strict=True
            )
            for _ in range(count)
        ]

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of the video of a pair."""
        return self.dataset.get_cat_ids(self._video(index))

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a pair; see :class:`RetrievalDatasetWrapper`."""
        video = self._video(index)
        item = self.source.get_data_info(video)
        if not item['captions']:
            return item
        return _keep_captions(item, index - int(self._ends[video]))

    def _video(self, index: int) -> int:
        """Number of the wrapped item."""
        return int(np.searchsorted(self._ends, index, side='right'))

    def __len__(self) -> int:
        return int(self._ends[-1])


@DATASETS.register_module()
class RandomCaption(RetrievalDatasetWrapper):
    """One item a video, with one of its captions, another at each draw.

    The caption depends on the seed, on the number of the item, and on how
    often it was drawn: by passes over the data set, and within a pass, as
    under ``RepeatDataset``, by the index that the outermost data set was
    asked for. It is the same with any number of workers and processes, and
    after a resume, also in the middle of an iteration-based training. Without
    repeats, a pass is an epoch.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): What to wrap,
            or its config; see :class:`RetrievalDatasetWrapper`.
        seed (int): Seed of the choice. Defaults to 0.

    Note:
        Training needs ``custom_hooks = [dict(type='DatasetEpochHook')]``,
        which calls :func:`~eaglenet_mm.datasets.number_draws` for the loader.
        Where draws are not numbered, :meth:`set_epoch` says the pass; its
        number lies in shared memory, so that workers that live on see it.
    """

    reads_draws = True

    def __init__(self, dataset: Any, *, seed: int = 0) -> None:
        self.seed = seed
        self._epoch = torch.tensor(-1).share_memory_()
        super().__init__(dataset)

    def number_items(self) -> None:
        """Leave out videos without captions."""
        self._kept = items_with_captions(self)

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

    def video_ids(self) -> list[str]:
        """Return the id of the video of each item."""
        ids = self.source.video_ids()
        return [ids[place] for place in self._kept]

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of an item."""
        return self.dataset.get_cat_ids(self._kept[index])

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video with one caption.

        Args:
            index (int): Number of the item, from 0.

        Returns:
            dict: As :class:`TextVideoDataset` describes it.

        Raises:
            RuntimeError: If neither draws are numbered nor
                :meth:`set_epoch` was called.
        """
        item = self.source.get_data_info(self._kept[index])
        generator = np.random.default_rng(self._draw(index))
        return _keep_captions(
            item, int(generator.integers(len(item['captions'])))
        )

    def _draw(self, index: int) -> list[int]:
        """Numbers that no other draw of any item has."""
        draw = current_draw()
        if draw is None:
            epoch = int(self._epoch)
            if epoch < 0:
                raise RuntimeError(
                    'RandomCaption does not know which pass over the data '
                    'this is, so it would choose the same captions again and '
                    'again. Add '
                    "custom_hooks = [dict(type='DatasetEpochHook')] to the "
                    'config, or call number_draws(loader), or set_epoch(0) '
                    'before reading items. In an iteration-based training '
                    'the batch sampler must hand on the very indices of its '
                    'sampler.'
                )
            return [self.seed, epoch, index]
        first = [self.seed, draw.pass_number, index]
        if draw == index and not draw.repeat:
            return first
        # drawn through a wrapper that may show an item several times
        return [*first, draw.repeat, int(draw)]

    def __len__(self) -> int:
        return len(self._kept)


@DATASETS.register_module()
class ParagraphDataset(RetrievalDatasetWrapper):
    """All captions of a video as one, for training and evaluation on DiDeMo.

    They are joined by a space in file order, as the release does. The texts
    of the set are then the videos' paragraphs: ``caption_indices`` is
    ``[video_index]``, less the videos without captions before it, and
    ``metainfo['num_captions']`` the number of videos with captions. A
    paragraph fits the videos that all its captions fit.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): What to wrap,
            or its config; see :class:`RetrievalDatasetWrapper`.
    """

    needs_videos = True

    def number_items(self) -> None:
        """Find the videos without captions."""
        if self.test_mode and self.source.metainfo.get('queries'):
            raise ValueError(
                'ParagraphDataset joins the captions of a video, but the '
                "ann_file has texts that stand with no video ('queries' of "
                'its header). Write each paragraph as one caption, and leave '
                'ParagraphDataset out.'
            )
        everything = range(len(self.source))
        silent = [x for x in everything if not self.source.count_captions(x)]
        self._silent = np.array(
            sorted(self.source.get_data_info(x)['video_index'] for x in silent)
        )
        self._kept = (
            list(everything) if self.test_mode else items_with_captions(self)
        )

    @property
    def metainfo(self) -> dict[str, Any]:
        """dict: Header of the annotation file, one caption a video."""
        metainfo = dict(self.source.metainfo)
        for captions, videos in (
            ('num_captions', 'num_videos'),
            ('published_captions', 'published_videos'),
        ):
            if videos in metainfo:
                metainfo[captions] = metainfo[videos] - len(self._silent)
        return metainfo

    def count_captions(self, index: int) -> int:
        """Return 1, or 0 for a video without captions in an evaluation."""
        return min(self.source.count_captions(self._kept[index]), 1)

    def video_ids(self) -> list[str]:
        """Return the id of the video of each item."""
        ids = self.source.video_ids()
        return [ids[place] for place in self._kept]

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of an item."""
        return self.dataset.get_cat_ids(self._kept[index])

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video with its paragraph."""
        item = self.source.get_data_info(self._kept[index])
        if item['captions']:
            before = int(np.searchsorted(self._silent, item['video_index']))
            item['captions'] = [' '.join(item['captions'])]
            item['caption_indices'] = [item['video_index'] - before]
            if 'positives' in item:
                first, *others = item['positives']
                item['positives'] = [
                    [x for x in first if all(x in other for other in others)]
                ]
        return item

    def __len__(self) -> int:
        return len(self._kept)


@DATASETS.register_module()
class VideoSubset(RetrievalDatasetWrapper):
    """Some of the videos, for quick looks and ablations.

    Videos and captions are numbered anew from 0 and the counts in
    ``metainfo`` agree with that, so that the subset can be evaluated.
    ``metainfo['subset_of']`` keeps the number of videos of the whole.

    Args:
        dataset (dict | BaseDataset | RetrievalDatasetWrapper): What to wrap,
            or its config; see :class:`RetrievalDatasetWrapper`.
        indices (int | Sequence[int]): Numbers of the items to keep, without
            repeats, or how many of the first.

    Raises:
        ValueError: If a number does not exist or comes twice, or none is
            left.
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

    def number_items(self) -> None:
        """Number the captions anew."""
        length, kept = len(self.source), self._indices
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
        counts = [self.source.count_captions(index) for index in kept]
        self._starts = np.cumsum([0, *counts])

    def count_captions(self, index: int) -> int:
        """Return how many captions an item carries."""
        return self.source.count_captions(self._indices[index])

    def video_ids(self) -> list[str]:
        """Return the id of the video of each item."""
        ids = self.source.video_ids()
        return [ids[place] for place in self._indices]

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the classes of an item."""
        return self.dataset.get_cat_ids(self._indices[index])

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return a video of the subset, numbered anew."""
        item = self.source.get_data_info(self._indices[index])
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
