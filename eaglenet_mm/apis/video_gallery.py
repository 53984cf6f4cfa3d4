"""The videos that an inferencer searches, and how they get there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eaglenet_mm.apis.own_videos import IndexingReport, VideoIndexer
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.search.moment_reading import MomentReader
from eaglenet_mm.search.searching import VideoSearcher
from eaglenet_mm.search.shortlisters import build_shortlister
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.search.video_index import VideoIndex

Videos = str | os.PathLike | Iterable[str | os.PathLike]


class VideoGallery:
    """Encodes videos into an index, and keeps what searches it.

    Args:
        num_workers (int): Processes that read videos, 0 for this one alone.
        video_batch (int): Videos, or segments, encoded in one call.
        first_stage (str | dict): What makes shortlists.

    Attributes:
        encoder (RetrieverEncoder): The model with its pipeline; set by a
            subclass.
        index (VideoIndex, optional): What is searched.
        report (IndexingReport, optional): What became of the files last
            encoded.

    Raises:
        ValueError: If a number is not allowed.
    """

    encoder: RetrieverEncoder

    def __init__(
        self,
        *,
        num_workers: int,
        video_batch: int,
        first_stage: str | dict,
    ) -> None:
        if num_workers < 0 or video_batch < 1:
            raise ValueError(
                'num_workers must be at least 0 and video_batch at least 1, '
                f'but they are {num_workers} and {video_batch}.'
            )
        self.num_workers = num_workers
        self.video_batch = video_batch
        self.first_stage = first_stage
        self.index: VideoIndex | None = None
        self.report: IndexingReport | None = None
        self._searcher: VideoSearcher | None = None

    def use(self, index: VideoIndex) -> None:
        """Search an index from now on.

        Raises:
            OtherModelError: If another model made it.
        """
        where = 'the index' if index.folder is None else str(index.folder)
        index.model.require(self.encoder.identity, where)
        if index is not self.index:
            self._searcher = None
        self.index = index

    def new_index(
        self,
        folder: str | os.PathLike | None = None,
        *,
        segment: float = 0.0,
        precision: str = 'float32',
    ) -> VideoIndex:
        """Make an empty index for videos that this model encodes.

        Args:
            folder (str | PathLike, optional): Where; default: in memory.
            segment (float): Seconds of a segment; 0 for whole videos.
                Default: 0.
            precision (str): ``'float32'``, ``'float16'`` or ``'int8'``.
                Default: 'float32'.

        Returns:
            VideoIndex: Open for writing.

        Raises:
            ValueError: If a setting is not allowed.
            IndexWriteError: If the folder is not empty, or cannot be made.
        """
        if not 0 <= segment < float('inf'):
            raise ValueError(
                'segment must be a number of seconds, or 0 for whole videos, '
                f'but is {segment}.'
            )
        identity = self.encoder.new_identity()
        settings: dict[str, Any] = dict(precision=precision, segment=segment)
        if folder is None:
            return VideoIndex(identity, **settings)
        return VideoIndex.create(Path(folder), identity, **settings)

    def encode_videos(
        self,
        videos: Videos,
        *,
        index: VideoIndex | None = None,
        segment: float = 0.0,
        precision: str = 'float32',
        retry: bool = False,
    ) -> VideoIndex:
        """Encode videos, and search them from now on.

        Files that cannot be read are logged, kept in ``report.unreadable``
        and left out.

        Args:
            videos (Videos): A folder, a file, or several of them.
            index (VideoIndex, optional): Takes up what is new or has
                changed. Default: a new one in memory.
            segment (float): Of a new index, see :meth:`new_index`.
            precision (str): Of a new index, see :meth:`new_index`.
            retry (bool): Whether unreadable files that have not changed are
                tried again. Default: False.

        Returns:
            VideoIndex: With the videos.

        Raises:
            FileNotFoundError: If a folder or file does not exist.
            ValueError: If there is no video.
            OtherModelError: If another model made the index.
        """
        found = find_videos(videos)
        if index is None:
            index = self.new_index(segment=segment, precision=precision)
        report = self.update(index, found.paths, retry=retry)
        report.passed_over = found.passed_over
        return index

    def update(
        self, index: VideoIndex, paths: Sequence[str], *, retry: bool = False
    ) -> IndexingReport:
        """Bring an index up to date with files, and search it from now on.

        Args:
            index (VideoIndex): Open for writing.
            paths (Sequence[str]): Absolute paths; one that does not exist is
                reported as unreadable.
            retry (bool): See :meth:`encode_videos`.

        Returns:
            IndexingReport: What became of the files.

        Raises:
            OtherModelError: If another model made the index.
        """
        self.use(index)
        reader = MomentReader(
            self.encoder.pipeline,
            segment=index.segment,
            num_workers=self.num_workers,
        )
        indexer = VideoIndexer(
            self.encoder.encode_moments, reader, self.video_batch
        )
        self.report = indexer.update(index, paths, retry=retry)
        return self.report

    def searcher(self) -> VideoSearcher:
        """Give what searches the index, brought up to date with it.

        Raises:
            ValueError: If there is no index.
        """
        index = self.index
        if index is None:
            raise ValueError(
                'There is nothing to search: call encode_videos first, or '
                'open an index with RetrievalInferencer.of_index.'
            )
        if self._searcher is None:
            row = index.vectors(index.row_ids[:1])
            shortlister = build_shortlister(
                self.first_stage,
                embed_dim=row.shape[1] or 1,
                num_rows=len(index),
                folder=None if index.folder is None else str(index.folder),
                model=index.model.fingerprint,
            )
            searcher = VideoSearcher(
                self.encoder.head, index, shortlister, self.encoder.device
            )
            if not len(index):
                return searcher  # the width of its vectors is not known yet
            self._searcher = searcher
        self._searcher.synchronise()
        return self._searcher
