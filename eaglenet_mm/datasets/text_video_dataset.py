"""The dataset class: videos with all their captions."""

import logging
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log

from eaglenet_mm.datasets.annotation import read_annotation, right_videos
from eaglenet_mm.datasets.fetching import fetch
from eaglenet_mm.datasets.shared_records import CurrentItems, LostVideos
from eaglenet_mm.datasets.transforms.open_video import closed_on_error
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.registry import DATASETS, SCOPE, TRANSFORMS
from eaglenet_mm.utils.near_match import near_match_hint


@DATASETS.register_module()
class TextVideoDataset(BaseDataset):
    """Videos with their captions, from one annotation file.

    An item is a **video** with all its captions; wrappers regroup items
    (:class:`CaptionExpansion`, :class:`RandomCaption`,
    :class:`ParagraphDataset`, :class:`VideoSubset`). Before the pipeline, an
    item is a dict of ``video_id`` (str), ``video`` (path including the
    prefix), ``captions`` (list[str]), ``caption_indices`` (list[int], position
    among all captions of the file), ``video_index`` (int, position of the
    record), ``start`` and ``end`` (seconds or None). If any caption of the
    file matches several videos or none, items also have ``positives``
    (list[list[str]]): for each caption, the ids of all matching videos. Items
    of records with moments also have ``moments``: for each caption, a list of
    ``[start, end]`` in seconds; empty for a text without a video.

    Texts without a video (``queries`` in the header) are appended to the
    captions of the items, one after the other, in ``test_mode``. Otherwise
    they are left out, with a warning: they cannot be trained on.

    ``metainfo`` is the header of the file: ``dataset``, ``split``,
    ``protocol``, ``num_videos``, ``num_captions`` and anything else in it.

    Args:
        ann_file (str): Annotation file, see
            :mod:`eaglenet_mm.datasets.annotation`.
        data_root (str): Folder that ``ann_file`` and the prefix are relative
            to. Default: ''.
        data_prefix (dict): ``video``: folder of the videos. Default:
            ``dict(video='')``.
        pipeline (Sequence[dict | Callable]): Transforms. Default: none.
        test_mode (bool): Whether the set is used for evaluation. Default:
            False.
        check_files (bool): Whether to check at construction that all videos
            exist. Default: False: a missing file raises when it is read.
        on_missing (str): What to do with a missing or unreadable video.
            ``'raise'``: raise an error that names it. ``'skip'``: log it
            once, count it in :attr:`lost_videos` and use another video
            instead; evaluation drops the substitute as a duplicate and
            reports how many videos were found. Default: 'raise'.
        shared_captions (bool, optional): Whether a sentence that occurs in
            several records matches all of their videos. Default: None:
            ``shared_captions`` of the header, or False.
        frame_cache (str, optional): Folder of a frame cache, relative to
            ``data_root``, made by ``tools/cache_frames.py``. Frames that are
            not in it are decoded. Default: None.
        max_refetch (int): Number of substitutes tried for a lost video.
            Default: 100.
        **kwargs: Further arguments of MMEngine's ``BaseDataset``, such as
            ``metainfo``, ``indices``, ``serialize_data`` and ``lazy_init``.

    Attributes:
        lost_videos (LostVideos): Videos skipped so far, by any process of any
            loader of this dataset.
        current_items (CurrentItems): The item each loader worker is reading.

    Raises:
        FileNotFoundError: If the annotation file, a video (with
            ``check_files``) or a frame cache for this pipeline is missing.
        ValueError, KeyError, TypeError: If the annotation violates the schema,
            ``data_prefix`` has no ``video``, or ``on_missing`` is unknown.

    Example:
        >>> import json
        >>> records = [dict(video_id='v', video='v.mp4', captions=['a dog'])]
        >>> metainfo = dict(dataset='mine', split='test', protocol='all')
        >>> with open('test.json', 'w') as file:
        ...     json.dump(dict(metainfo=metainfo, data_list=records), file)
        >>> TextVideoDataset('test.json').get_data_info(0)['captions']
        ['a dog']
    """

    #: Whether items and videos correspond one to one.
    items_are_videos = True

    def __init__(
        self,
        ann_file: str,
        *,
        data_root: str = '',
        data_prefix: dict[str, str] | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        check_files: bool = False,
        on_missing: str = 'raise',
        shared_captions: bool | None = None,
        frame_cache: str | None = None,
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        data_prefix = dict(video='') if data_prefix is None else data_prefix
        if set(data_prefix) != {'video'}:
            raise KeyError(
                "data_prefix must have the key 'video' and no other, but got "
                f'{sorted(data_prefix)}. Write data_prefix=dict(video=...).'
            )
        if on_missing not in ('raise', 'skip'):
            raise ValueError(
                f"on_missing must be 'raise' or 'skip', but got "
                f'{on_missing!r}. Change it in the dataset of the config.'
            )
        self.check_files = check_files
        self.on_missing = on_missing
        self.shared_captions = shared_captions
        self.current_items = CurrentItems()
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            # bare names mean our transforms, whatever the default scope
            pipeline=[
                TRANSFORMS.build({'_scope_': SCOPE, **transform})
                if isinstance(transform, dict)
                else transform
                for transform in pipeline
            ],
            test_mode=test_mode,
            max_refetch=max_refetch,
            **kwargs,
        )
        self.frame_cache: Any = None
        if frame_cache is not None:
            from eaglenet_mm.datasets.frame_cache import FrameCache

            self.frame_cache = FrameCache(
                osp.join(data_root, frame_cache),
                self.pipeline.transforms,
                data_root=data_root,
            )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Load the annotation file; one item per record, in file order."""
        header, records = read_annotation(self.ann_file)
        if self.shared_captions is not None:
            header['shared_captions'] = self.shared_captions
        positives = right_videos(header, records)
        queries = self._queries(header)
        for key in ('num_captions', 'published_captions'):
            if key in header:
                header[key] += len(queries)
        # the config overrides the file
        self._metainfo: dict[str, Any] = {**header, **self._metainfo}
        data_list, num_captions = [], 0
        for video_index, record in enumerate(records):
            captions = record['captions']
            data_list.append(
                dict(
                    video_id=record['video_id'],
                    video=osp.join(self.data_prefix['video'], record['video']),
                    captions=captions,
                    caption_indices=list(
                        range(num_captions, num_captions + len(captions))
                    ),
                    video_index=video_index,
                    start=record.get('start'),
                    end=record.get('end'),
                )
            )
            if positives is not None:
                data_list[-1]['positives'] = positives[video_index]
            if 'moments' in record:
                data_list[-1]['moments'] = record['moments']
            num_captions += len(captions)
        for number, query in enumerate(queries):
            item = data_list[number % len(data_list)]
            item['captions'].append(query['caption'])
            item['caption_indices'].append(num_captions + number)
            item['positives'].append(list(query.get('positives', ())))
            if 'moments' in item:
                item['moments'].append([])
        if self.check_files:
            self._check_files(data_list)
        return data_list

    def _queries(self, header: dict[str, Any]) -> list[dict[str, Any]]:
        """Replace the queries in the header by their number; return them."""
        queries = header.get('queries', [])
        if 'queries' in header:
            # a copy of metainfo would copy thousands of texts
            header['queries'] = len(queries)
        if queries and not self.test_mode:
            print_log(
                f"{len(queries)} texts of '{self.ann_file}' have no video "
                "('queries' in its header). They are left out because this is "
                'not an evaluation set (test_mode=False).',
                logger='current',
                level=logging.WARNING,
            )
            return []
        return queries

    def count_captions(self, index: int) -> int:
        """Return the number of captions of an item."""
        return len(self.get_data_info(index)['captions'])

    def video_ids(self) -> list[str]:
        """Return the video id of each item."""
        return [self.get_data_info(x)['video_id'] for x in range(len(self))]

    def process(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline.

        Args:
            item (dict): Item from :meth:`get_data_info` of this dataset or of
                a wrapper.

        Returns:
            Any: The output of the pipeline; None for a lost video if
            ``on_missing`` is 'skip'.
        """
        index = item['sample_idx']
        if self.on_missing == 'skip' and index in self.lost_videos:
            return None
        try:
            with self.current_items.reading(index), closed_on_error(item):
                return self._transform(item)
        except (VideoReadError, FileNotFoundError) as err:
            if self.on_missing == 'raise':
                if isinstance(err, FileNotFoundError):
                    raise FileNotFoundError(
                        f"{err} If others are missing too, check 'data_root' "
                        "and 'data_prefix' in the config, and that the "
                        'download is complete.'
                    ) from err
                raise
            if self.lost_videos.add(index):
                print_log(
                    f"Video '{item['video_id']}' is skipped "
                    f'({len(self.lost_videos)} of {len(self)} so far): {err}',
                    logger='current',
                    # other ranks log errors only
                    level=logging.ERROR,
                )
            return None

    def _transform(self, item: dict[str, Any]) -> Any:
        """Send an item through the pipeline, or its part after the cache."""
        cache = self.frame_cache
        results = None if cache is None else cache.fill(item)
        if results is None:
            return self.pipeline(item)
        return Compose(self.pipeline.transforms[cache.num_fixed :])(results)

    def full_init(self) -> None:
        """Load the annotation if not done yet."""
        super().full_init()
        if not hasattr(self, 'lost_videos'):
            self.lost_videos = LostVideos(len(self))

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep some of the items in place; see ``BaseDataset``."""
        super().get_subset_(indices)
        self.lost_videos = LostVideos(len(self))

    def get_subset(self, indices: Sequence[int] | int) -> 'TextVideoDataset':
        """Return a copy with some of the items; see ``BaseDataset``."""
        subset = super().get_subset(indices)
        subset.lost_videos = LostVideos(len(subset))
        return subset

    def __getitem__(self, index: int) -> Any:
        return fetch(self, index, self.max_refetch)

    def _check_files(self, data_list: list[dict[str, Any]]) -> None:
        """Raise if videos are missing, with their number and some names."""
        lost = [item for item in data_list if not osp.isfile(item['video'])]
        if lost:
            missing = [f'{x["video_id"]} ({x["video"]})' for x in lost[:10]]
            more = '' if len(lost) <= 10 else ', ...'
            mend = near_match_hint(lost[0]['video']) or (
                " Check 'data_root' and 'data_prefix' in the config, and that "
                'the download is complete.'
            )
            raise FileNotFoundError(
                f'{len(lost)} of {len(data_list)} videos of '
                f"'{self.ann_file}' do not exist: {', '.join(missing)}{more}."
                f'{mend}'
            )
