"""What the demo asks of a model and an index, one question at a time."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.search.hit_output import search_note
from eaglenet_mm.search.records import IndexedFile, IndexEntry
from eaglenet_mm.search.searching import SearchHit

#: Kinds as browsers name them. Nothing else is said of a file, so that one
#: that is called page.html never becomes a page.
# fmt: off
KINDS = {
    '.3gp': 'video/3gpp', '.avi': 'video/x-msvideo', '.flv': 'video/x-flv',
    '.gif': 'image/gif', '.m2ts': 'video/mp2t', '.m4v': 'video/mp4',
    '.mkv': 'video/x-matroska',
    '.mov': 'video/mp4',  # the same container; QuickTime is played by Safari
    '.mp4': 'video/mp4', '.mpeg': 'video/mpeg', '.mpg': 'video/mpeg',
    '.mts': 'video/mp2t', '.ogv': 'video/ogg', '.ts': 'video/mp2t',
    '.vob': 'video/mpeg', '.webm': 'video/webm', '.wmv': 'video/x-ms-wmv',
}
# fmt: on
UNKNOWN_KIND = 'application/octet-stream'
#: Thumbnails on the page before the first search, at most.
NUM_SAMPLES = 24


class Searches:
    """Answers in the form that the page reads.

    The model runs in one thread of its own: questions wait for each other,
    videos and the page do not wait for them.

    Args:
        inferencer (RetrievalInferencer): With an index.
        shortlist (int): Rows that the head scores; 0 for all.
    """

    def __init__(self, inferencer: RetrievalInferencer, shortlist: int):
        if inferencer.index is None:
            raise ValueError(
                'The demo needs an index. Give the inferencer one with '
                'encode_videos or RetrievalInferencer.of_index.'
            )
        if shortlist < 0:
            raise ValueError(
                f'shortlist must be at least 0 (all), but is {shortlist}.'
            )
        self.inferencer = inferencer
        self.index = inferencer.index
        self.shortlist = shortlist
        self._thread = ThreadPoolExecutor(1, 'model')
        self._tokenizer = _tokenizer_of(inferencer)
        rows: dict[str, list[int]] = {}
        for entry in self.index.entries(self.index.row_ids):
            rows.setdefault(entry.file.path, []).append(entry.row_id)
        self.num_files = len(rows)
        folders = [os.path.dirname(path) for path in rows]
        self._root = os.path.commonpath(folders) if folders else ''
        step = max(1, math.ceil(len(rows) / NUM_SAMPLES))
        self._samples = [
            dict(row_id=rows[path][len(rows[path]) // 2], name=_name(path))
            for path in sorted(rows)[::step]
        ]

    def about(self) -> dict[str, Any]:
        """Describe the index and its model."""
        folder = self.index.folder
        return dict(
            index='' if folder is None else folder.name,
            files=self.num_files,
            rows=len(self.index),
            segment=self.index.segment,
            method=type(self.inferencer.encoder.head).__name__,
            untrained=list(self.index.model.untrained),
            samples=self._samples,
        )

    async def by_text(self, query: str, count: int) -> dict[str, Any]:
        """Search by a sentence."""

        def run() -> list[SearchHit]:
            return self.inferencer.search(
                query, count, shortlist=self.shortlist
            )

        answer = await self._answer(run)
        wanted = max(self.shortlist, count) if self.shortlist else 0
        answer['note'] = search_note(self.index, wanted)
        answer['read'] = characters_read(self._tokenizer, query)
        return answer

    async def by_video(self, path: str, count: int) -> dict[str, Any]:
        """Search by a video file.

        Raises:
            VideoReadError: If it cannot be read.
        """

        def run() -> list[SearchHit]:
            try:
                return self.inferencer.search_video(path, count)
            except VideoReadError as err:
                print_log(f'Uploaded clip: {err}', level=logging.WARNING)
                raise

        answer = await self._answer(run)
        answer['note'] = 'ranked by the similarity of the first stage'
        return answer

    async def _answer(
        self, search: Callable[[], list[SearchHit]]
    ) -> dict[str, Any]:
        def run() -> dict[str, Any]:
            began = time.monotonic()
            hits = [self._record(hit) for hit in search()]
            return dict(hits=hits, seconds=time.monotonic() - began)

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, run)

    def entry(self, row_id: int) -> IndexEntry:
        """Look a row up.

        Raises:
            KeyError: If the index has none of that number.
        """
        return self.index.entries(torch.tensor([row_id]))[0]

    def _record(self, hit: SearchHit) -> dict[str, Any]:
        file = hit.entry.file
        trouble = file_trouble(file)
        return dict(
            row_id=hit.entry.row_id,
            name=_name(file.path),
            folder=os.path.relpath(os.path.dirname(file.path), self._root),
            path=file.path,
            kind=kind_of(file),
            duration=_finite(file.duration),
            start=_finite(hit.entry.start),
            end=_finite(hit.entry.end),
            best_time=_finite(hit.best_time),
            score=_finite(hit.score),
            similarity=_finite(hit.similarity),
            trouble='' if trouble is None else trouble[1],
        )


def kind_of(file: IndexedFile) -> str:
    """Name the kind of a file by its ending."""
    ending = os.path.splitext(file.path)[1].lower()
    return KINDS.get(ending, UNKNOWN_KIND)


def file_trouble(file: IndexedFile) -> tuple[int, str] | None:
    """Tell why a file of the index cannot be shown.

    Returns:
        tuple[int, str] | None: Status of HTTP and a sentence; None if it can
        be shown. A file that has changed is not the one that was indexed.
    """
    name = _name(file.path)
    try:
        status = os.stat(file.path)
    except (OSError, ValueError):
        return 410, f'{name} is gone: it was moved or deleted after indexing.'
    if not stat.S_ISREG(status.st_mode) or (
        (status.st_size, status.st_mtime_ns) != (file.size, file.changed)
    ):
        return 409, (
            f'{name} has changed since it was indexed. Bring the index up to '
            'date with tools/index.py, and start the demo again.'
        )
    if not os.access(file.path, os.R_OK):
        return 403, f'{name} may not be read by the user of the demo.'
    return None


def characters_read(
    tokenizer: Callable[[Sequence[str], int], Tensor], query: str
) -> int | None:
    """Find how much of a query the model reads.

    A tokenizer does not say where it cuts. Up to there, every further
    character may change the tokens; behind it, none does.

    Args:
        tokenizer (Callable): Of a list of sentences, and the length it gives,
            0 for that of the model.
        query (str): The query.

    Returns:
        int | None: Characters from the beginning; None if it is all.
    """
    whole = tokenizer([query], 0)[0]
    low, high = 0, len(query)  # the first ``high`` characters are enough
    while low < high:
        middle = (low + high) // 2
        if tokenizer([query[:middle]], 0)[0].equal(whole):
            high = middle
        else:
            low = middle + 1
    # a full stop at the end may be without a token although nothing is cut
    length = whole.numel() + len(query.encode('utf-8', 'replace')) + 8
    start, full = tokenizer([query[:high], query], length)
    return None if start.equal(full) else high


def _tokenizer_of(
    inferencer: RetrievalInferencer,
) -> Callable[[Sequence[str], int], Tensor]:
    transform = inferencer.encoder.tokenizer

    def tokenize(sentences: Sequence[str], length: int) -> Tensor:
        return transform.tokenizer(sentences, length or transform.max_words)

    return tokenize


def _name(path: str) -> str:
    return os.path.basename(path)


def _finite(value: float) -> float | None:
    """Give a number as JSON knows it."""
    return value if math.isfinite(value) else None
