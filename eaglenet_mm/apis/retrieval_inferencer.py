"""Search in one's own videos with a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from eaglenet_mm.apis.own_videos import IndexingReport, VideoIndexer
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.apis.retriever_loading import find_config
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.moment_reading import MomentReader
from eaglenet_mm.search.searching import (
    SearchHit,
    VideoSearcher,
    recall_of_shortlist,
)
from eaglenet_mm.search.shortlisters import build_shortlister
from eaglenet_mm.search.stored_config import from_plain
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import TextFeatures

Videos = str | os.PathLike | Iterable[str | os.PathLike]


class RetrievalInferencer:
    """Find videos by sentences, and by videos.

    Args:
        model (str | PathLike | Config): A config file, a config, or the name
            of a config of the package, such as ``'eaglenet_msrvtt'``.
        weights (str, optional): Checkpoint, a file or URL. None only for
            heads without parameters on pretrained encoders.
        device (str, optional): Default: the GPU if there is one.
        untrained (bool): Whether random weights are allowed, with a loud
            warning. Default: False.
        num_workers (int): Processes that read videos, 0 for this one alone.
            Default: 2.
        video_batch (int): Videos, or segments, encoded in one call. With 1,
            the default, rows are those of a test to the last bit; larger
            values are faster on a GPU.
        first_stage (str | dict): What makes shortlists: ``'auto'``,
            ``'torch'``, ``'faiss'``, ``'milvus'`` (with an address:
            ``'milvus:http://host:19530'``) or a config of a shortlister.
            Default: 'auto'.

    Attributes:
        encoder (RetrieverEncoder): The model with its pipeline.
        index (VideoIndex, optional): What is searched unless another index is
            given: the last one that was encoded or opened.
        report (IndexingReport, optional): What became of the files of the
            last :meth:`encode_videos`.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        ValueError: If the checkpoint does not fit, there is none, the
            method cannot search, or a number is not allowed.

    Example:
        >>> inferencer = RetrievalInferencer('eaglenet_toy', untrained=True)
        >>> inferencer.encode_texts('a red ring moves left').embeds.shape
        torch.Size([1, 96])

        With a trained model, ``inferencer.encode_videos('holidays')`` makes an
        index of a folder, and ``inferencer.search('a dog runs', k=3)`` gives
        hits with ``entry.file.path``, ``best_time`` and ``score``.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | None = None,
        device: str | torch.device | None = None,
        *,
        untrained: bool = False,
        num_workers: int = 2,
        video_batch: int = 1,
        first_stage: str | dict = 'auto',
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
        self.encoder = RetrieverEncoder(
            find_config(model), weights, device, untrained=untrained
        )

    @classmethod
    def of_index(
        cls,
        folder: str | os.PathLike | VideoIndex,
        weights: str | None = None,
        device: str | torch.device | None = None,
        *,
        model: str | os.PathLike | Config | None = None,
        **kwargs: Any,
    ) -> RetrievalInferencer:
        """Open an index together with the model that made it.

        Args:
            folder (str | PathLike | VideoIndex): The index.
            weights (str, optional): Checkpoint. Default: the file that the
                index names.
            device (str, optional): See the class.
            model (str | PathLike | Config, optional): Default: the config
                that the index holds.
            **kwargs (Any): Further arguments of the class.

        Returns:
            RetrievalInferencer: Its :attr:`index` is the index.

        Raises:
            OtherModelError: If the weights are not those of the index.
            VideoIndexError: If its model cannot be built from what it holds.
        """
        index = (
            folder
            if isinstance(folder, VideoIndex)
            else VideoIndex.load(Path(folder))
        )
        folder, identity = index.folder or 'the index', index.model
        if weights is None and '://' in identity.checkpoint:
            raise VideoIndexError(
                f'{folder} names a checkpoint on a network, '
                f'{identity.checkpoint[:200]}. Give it (--checkpoint) if you '
                'trust it.'
            )
        weights = weights or identity.checkpoint or None
        kwargs.setdefault('untrained', bool(identity.untrained))
        if model is not None:
            inferencer = cls(model, weights, device, **kwargs)
        else:
            config = Config(from_plain(identity.config))
            try:
                inferencer = cls(config, weights, device, **kwargs)
            except KeyError as err:
                raise VideoIndexError(
                    f'The model of {folder} cannot be built from the config '
                    f'stored with it ({err}). Give the config (--config) '
                    'that imports what it needs.'
                ) from err
            except FileNotFoundError as err:
                raise FileNotFoundError(
                    f'{err} The index {folder} was made with it; give its '
                    'present place (--checkpoint).'
                ) from err
        inferencer.use(index)
        return inferencer

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

    def encode_texts(self, texts: str | Sequence[str]) -> TextFeatures:
        """Encode sentences.

        Args:
            texts (str | Sequence[str]): ``Bt`` sentences.

        Returns:
            TextFeatures: On the device of the model.

        Raises:
            ValueError: If there is none, or one is empty.
        """
        return self.encoder.encode_texts(
            [texts] if isinstance(texts, str) else list(texts)
        )

    def search(
        self, text: str, k: int = 5, *, shortlist: int = 100
    ) -> list[SearchHit]:
        """Find videos, or segments, by a sentence.

        Args:
            text (str): The sentence.
            k (int): Hits wanted; fewer come back if there are fewer.
                Default: 5.
            shortlist (int): Rows that the head scores, chosen by the first
                stage, ``k`` at least; 0 for all. Default: 100.

        Returns:
            list[SearchHit]: The best first.

        Raises:
            ValueError: If the text is empty, ``k`` is below 1, or there is
                no index.
        """
        _check_count(k)
        if not isinstance(text, str):
            raise TypeError(
                f'search takes one sentence, but got {type(text).__name__}. '
                'Call it once for each.'
            )
        if shortlist < 0:
            raise ValueError(
                f'shortlist must be at least 0 (all), but is {shortlist}.'
            )
        searcher = self.searcher()
        return searcher.search(self.encode_texts(text), k, shortlist)

    def check_shortlist(self, text: str, k: int, shortlist: int) -> float:
        """Tell how many of the best rows the first stage lets through.

        The ceiling of what a search with this shortlist can find. All rows
        are scored for it.

        Args:
            text (str): The sentence.
            k (int): Best rows that count.
            shortlist (int): Rows on the shortlist; 0 for all.

        Returns:
            float: A share, 1.0 for all.
        """
        searcher, features = self.searcher(), self.encode_texts(text)
        best = searcher.search(features, k, 0)
        wanted = max(shortlist, k) if shortlist else len(searcher.index)
        return recall_of_shortlist(
            best, searcher.shortlist(features, wanted)[1]
        )

    def search_video(
        self, video: str | os.PathLike, k: int = 5
    ) -> list[SearchHit]:
        """Find videos, or segments, that resemble a video.

        Args:
            video (str | PathLike): The file. Where it is in the index, it is
                found itself.
            k (int): Hits wanted. Default: 5.

        Returns:
            list[SearchHit]: The most similar first, by the first stage.

        Raises:
            VideoReadError: If the video cannot be read.
        """
        _check_count(k)
        searcher = self.searcher()
        features = self.encoder.encode_files(
            [os.path.abspath(video)], self.num_workers
        )
        return searcher.search_video(features, k)

    def scores(self, texts: str | Sequence[str], videos: Videos) -> Tensor:
        """Score every sentence against every video.

        Args:
            texts (str | Sequence[str]): ``Bt`` sentences.
            videos (Videos): Files in the order of the columns, ``Bv`` of
                them; or a folder, whose files are sorted.

        Returns:
            Tensor: Higher is better, shape ``(Bt, Bv)``.

        Raises:
            VideoReadError: If a video cannot be read; a column cannot be
                left out.
        """
        if isinstance(videos, str | os.PathLike):
            paths = find_videos(Path(videos)).paths
        else:
            paths = [os.path.abspath(path) for path in videos]
        if not paths:
            raise ValueError('There are no videos to score.')
        text, head = self.encode_texts(texts), self.encoder.head
        features = self.encoder.encode_files(paths, self.num_workers)
        with torch.no_grad():
            return head.score_chunked(
                head.prepare_text(text), head.prepare_video(features)
            ).cpu()


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f'k must be at least 1, but is {count}.')
