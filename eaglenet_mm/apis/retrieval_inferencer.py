"""Search in one's own videos with a trained model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.apis.retriever_loading import find_config
from eaglenet_mm.apis.video_indexer import IndexingReport, VideoIndexer
from eaglenet_mm.search.errors import OtherModelError, VideoIndexError
from eaglenet_mm.search.evidence import (
    Calibration,
    characters_read,
    check_alpha,
    unknown_words,
    words_of,
)
from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.search.searching import Page, SearchAnswer, VideoSearcher
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
        num_workers (int): Processes that read videos, 0 for this one alone.
            Default: 2.
        video_batch (int): Videos, or segments, encoded in one call. With 1,
            the default, rows are those of a test to the last bit; larger
            values are faster on a GPU.
        first_stage (str | dict): What makes shortlists, see
            :func:`~eaglenet_mm.search.shortlisters.build_shortlister`.
            Default: 'auto'.
        **options (bool): ``untrained`` and ``encoders_only``, see
            :func:`~eaglenet_mm.apis.retriever_loading.load_retriever`.

    Attributes:
        encoder (RetrieverEncoder): The model with its pipeline.
        index (VideoIndex, optional): What is searched: the last index that
            was encoded or opened.
        report (IndexingReport, optional): What became of the files of the
            last :meth:`encode_videos`.

    Example:
        >>> inferencer = RetrievalInferencer('eaglenet_story', untrained=True)
        >>> inferencer.encode_texts('a red ring moves left').embeds.shape
        torch.Size([1, 96])

        With a trained model, ``inferencer.encode_videos('holidays')`` makes an
        index of a folder, and ``inferencer.search('a dog runs', k=3)`` gives
        hits with ``path``, ``best_time`` and ``score``.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | None = None,
        device: str | torch.device | None = None,
        *,
        num_workers: int = 2,
        video_batch: int = 1,
        first_stage: str | dict = 'auto',
        **options: bool,
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
        self._words: frozenset[str] = frozenset()
        cfg = find_config(model)
        self.encoder = RetrieverEncoder(cfg, weights, device, **options)

    @classmethod
    def of_index(
        cls,
        where: str | os.PathLike | VideoIndex,
        weights: str | None = None,
        device: str | torch.device | None = None,
        *,
        model: str | os.PathLike | Config | None = None,
        head: str | os.PathLike | Config | None = None,
        **kwargs: Any,
    ) -> RetrievalInferencer:
        """Open an index together with a model that can search it.

        Args:
            where (str | PathLike | VideoIndex): The index.
            weights (str, optional): Checkpoint. Default: the file that the
                index names.
            device (str, optional): See the class.
            model (str | PathLike | Config, optional): Default: the config
                that the index holds.
            head (str | PathLike | Config, optional): Config whose head takes
                the place of the index's own, on the same encoders. A head
                with parameters needs the ``weights`` it was trained with,
                whose encoders must be those of the index.
            **kwargs (Any): Further arguments of the class.

        Raises:
            OtherModelError: If the encoders are not those of the index.
            VideoIndexError: If its model cannot be built from what it holds.
        """
        index = (
            where if isinstance(where, VideoIndex) else VideoIndex.load(where)
        )
        identity = index.model
        if weights is None and '://' in identity.checkpoint:
            raise VideoIndexError(
                f'{index.where} names a checkpoint on a network, '
                f'{identity.checkpoint[:200]}. Give it (--checkpoint) if you '
                'trust it.'
            )
        config = find_config(
            Config(from_plain(identity.config)) if model is None else model
        )
        known = weights or identity.checkpoint or None
        if head is not None:
            config.model.head = find_config(head).model.head
            kwargs['encoders_only'] = weights is None
        kwargs.setdefault('untrained', bool(identity.untrained))
        try:
            inferencer = cls(config, known, device, **kwargs)
        except KeyError as err:
            raise VideoIndexError(
                f'The model of {index.where} cannot be built from the config '
                f'stored with it ({err}). Give the config (--config) that '
                'imports what it needs.'
            ) from err
        except FileNotFoundError as err:
            raise FileNotFoundError(
                f'{err} The index {index.where} was made with it; give its '
                'present place (--checkpoint).'
            ) from err
        inferencer.use(index)
        return inferencer

    def use(self, index: VideoIndex) -> None:
        """Search an index of these encoders from now on."""
        if index is not self.index:
            index.model.require(self.encoder.identity, index.where)
            self._searcher = None
            self._words = frozenset(index.about.get('words', ()))
        self.index = index

    def new_index(
        self, where: str | os.PathLike = ':memory:', **settings: Any
    ) -> VideoIndex:
        """Make an empty index for videos that this model encodes.

        ``settings`` are ``segment`` and ``precision``, see
        :meth:`VideoIndex.create`.
        """
        encoder = self.encoder
        return VideoIndex.create(
            where, encoder.identity, encoder.example_rows(), **settings
        )

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
            retry (bool): Whether unreadable files that have not changed are
                tried again. Default: False.
            segment (float): Of a new index, see :meth:`new_index`.
            precision (str): Likewise.
        """
        found = find_videos(videos)
        if index is None:
            index = self.new_index(segment=segment, precision=precision)
        report = self.update(index, found.paths, retry=retry)
        report.passed_over = found.passed_over
        return index

    def update(
        self,
        index: VideoIndex,
        paths: Sequence[str],
        *,
        retry: bool = False,
        indexer: Callable[..., Any] = VideoIndexer,
    ) -> IndexingReport:
        """Bring an index up to date with files, and search it from now on.

        Paths are absolute; a file that does not exist is reported as
        unreadable. The index must be of these encoders and, where it keeps
        what a head has prepared, of this head.
        """
        self.use(index)
        identity = self.encoder.identity
        if index.model.vectors != identity.vectors or (
            index.layout.state.columns and index.model.head != identity.head
        ):
            raise OtherModelError(
                f'{index.where} keeps what another head prepared '
                f'({index.model.checkpoint or "no checkpoint"}). Add videos '
                'with the config and checkpoint it was made with.'
            )
        encoding = indexer(self.encoder, self.num_workers, self.video_batch)
        pieces = {path: (path, None) for path in paths}
        self.report = encoding.update(index, pieces, retry=retry)
        return self.report

    def searcher(self) -> VideoSearcher:
        """Give what searches the index; an error if there is none."""
        if self.index is None:
            raise ValueError(
                'There is nothing to search: call encode_videos first, or '
                'open an index with RetrievalInferencer.of_index.'
            )
        if self._searcher is None:
            self._searcher = VideoSearcher(
                self.encoder.head,
                self.encoder.identity.head,
                self.index,
                build_shortlister(self.first_stage, self.index),
                self.encoder.device,
            )
        return self._searcher

    def encode_texts(self, texts: str | Sequence[str]) -> TextFeatures:
        """Encode sentences, on the device of the model."""
        return self.encoder.encode_texts(
            [texts] if isinstance(texts, str) else list(texts)
        )

    def search(
        self,
        text: str | Sequence[str],
        k: int = 5,
        *,
        shortlist: int = 100,
        offset: int = 0,
        where: MomentFilter | None = None,
        per_video: int = 0,
        reject: float | None = None,
    ) -> Any:
        """Find videos, or segments, by a sentence.

        What other processes have added to the index since is searched, too.

        Args:
            text (str | Sequence[str]): The sentence, or several.
            k (int): Hits wanted; fewer come back if there are fewer.
                Default: 5.
            shortlist (int): Rows that the head scores, chosen by the first
                stage, ``k`` at least; 0 for all. Default: 100.
            offset (int): Hits to leave out first. Default: 0.
            where (MomentFilter, optional): Which files count. Default: all.
            per_video (int): Hits of one video at most, with its further
                moments in ``others``; 0 for no limit. Default: 0.
            reject (float, optional): Share of good queries that may be told
                that nothing was found; needs :meth:`calibrate`, and no
                filter. Default: None, none is.

        Returns:
            SearchAnswer | list[SearchAnswer]: The best first; a list for
            several sentences.

        Raises:
            ValueError: If a text is empty, a number is not allowed, there is
                no index, or none that is calibrated for ``reject``.
        """
        page = Page(k, offset, where, per_video, shortlist)
        if reject is not None:
            check_alpha(reject)
        searcher = self.searcher()
        texts = [text] if isinstance(text, str) else list(text)
        answers = searcher.search(self.encode_texts(texts), page)
        calibration = Calibration.of_index(
            searcher.index, self.encoder.identity.head, shortlist
        )
        if reject is not None and calibration is None:
            raise ValueError(
                f'{searcher.index.where} is not calibrated for this head and '
                f'a shortlist of {shortlist}. Run tools/index.py with '
                '--calibrate, or leave out --reject.'
            )
        encoding = self.encoder.tokenizer
        for sentence, answer in zip(texts, answers, strict=True):
            answer.unknown_words = unknown_words(encoding.tokenizer, sentence)
            if self._words:
                words = words_of(sentence)
                answer.unseen_words = [
                    word for word in words if word not in self._words
                ]
            answer.cut_at = characters_read(
                encoding.tokenizer, encoding.max_words, sentence
            )
            if calibration is not None and not math.isnan(answer.top_score):
                answer.p_value = calibration.p_value(answer.top_score)
                answer.nothing_found = answer.p_value <= (reject or 0)
        return answers[0] if isinstance(text, str) else answers

    def calibrate(
        self, captions: Sequence[str], *, shortlist: int = 100
    ) -> Calibration:
        """Find out how captions of the index score, and keep it there.

        They are of videos in the index, which must be open for writing, as
        users would write them, and not those of the training. ``shortlist``
        is that of the searches.
        """
        searcher, head = self.searcher(), self.encoder.identity.head
        page = Page(1, shortlist=shortlist)
        answers = searcher.search(self.encode_texts(captions), page)
        scores = [answer.top_score for answer in answers]
        made = Calibration.of(head, shortlist, scores)
        made.keep_in(searcher.index)
        return made

    def check_shortlist(self, text: str, k: int, shortlist: int) -> float:
        """Tell how many of the best rows the first stage lets through.

        A share of the ``k`` best, 1.0 for all: the ceiling of what a search
        with this shortlist can find. All rows are scored for it.
        """
        searcher, features = self.searcher(), self.encode_texts(text)
        (answer,) = searcher.search(features, Page(k, shortlist=0))
        best = {hit.moment_id for hit in answer}
        if not shortlist or not best:
            return 1.0
        near = searcher.shortlist(features, max(shortlist, k))[0][1]
        return len(best & set(near.tolist())) / len(best)

    def search_video(
        self,
        video: str | os.PathLike,
        k: int = 5,
        **options: Any,
    ) -> SearchAnswer:
        """Find videos, or segments, that resemble a video file.

        By the first stage alone; a file of the index is found itself.
        ``options`` are ``offset``, ``where`` and ``per_video``, see
        :meth:`search`.

        A ``VideoReadError`` if it cannot be read.
        """
        page = Page(k, shortlist=0, **options)  # it has no second stage
        searcher, path = self.searcher(), os.path.abspath(video)
        features = self.encoder.encode_files([path], self.num_workers)
        return searcher.search_video(features, page)

    def scores(self, texts: str | Sequence[str], videos: Videos) -> Tensor:
        """Score every sentence against every video, shape ``(Bt, Bv)``.

        Higher is better. ``videos`` are files in the order of the columns, or
        a folder, whose files are sorted; all must be readable.
        """
        if isinstance(videos, str | os.PathLike):
            videos = find_videos(videos).paths
        paths = [os.path.abspath(path) for path in videos]
        if not paths:
            raise ValueError('There are no videos to score.')
        text, head = self.encode_texts(texts), self.encoder.head
        features = self.encoder.encode_files(paths, self.num_workers)
        with torch.no_grad():
            return head.score_chunked(
                head.prepare_text(text), head.prepare_video(features)
            ).cpu()
