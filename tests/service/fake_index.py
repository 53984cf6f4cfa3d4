"""An inferencer that answers at once: for what the service does itself."""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.search.records import IndexedFile, Moment, MomentFilter
from eaglenet_mm.search.searching import SearchAnswer, SearchHit

_IMAGE = io.BytesIO()
Image.new('RGB', (16, 12)).save(_IMAGE, 'JPEG')
JPEG = _IMAGE.getvalue()


class FakeIndex:
    """Files of a folder, in moments of some seconds."""

    where = '/somewhere/films.index'
    precision = 'float32'
    model = SimpleNamespace(untrained=['head'])

    def __init__(self, moments: Sequence[Moment], segment: float = 4) -> None:
        self.moments = {moment.moment_id: moment for moment in moments}
        self.segment = segment
        self.overlap = 0.0
        self.store = self
        self.next: Sequence[Moment] | None = None

    @property
    def files(self) -> dict[str, IndexedFile]:
        return {x.file.path: x.file for x in self.moments.values()}

    @property
    def ids(self) -> torch.Tensor:
        return torch.tensor(sorted(self.moments), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.moments)

    def refresh(self) -> bool:
        if self.next is None:
            return False
        self.moments = {moment.moment_id: moment for moment in self.next}
        self.next = None
        return True

    def moment(self, moment_id: int) -> Moment:
        return self.moments[moment_id]

    def ids_of(self, path: str) -> torch.Tensor:
        own = [n for n, x in self.moments.items() if x.file.path == path]
        return torch.tensor(own)

    def thumbnail(self, moment_id: int) -> bytes:
        self.moment(moment_id)
        return JPEG


class FakeInferencer:
    """Hits in an order that depends on the query alone."""

    def __init__(self, index: FakeIndex) -> None:
        self.index = index
        self.encoder = SimpleNamespace(head=self)

    def search(self, text: Any, k: int = 10, **options: Any) -> Any:
        if not isinstance(text, str):
            return [self.search(one, k, **options) for one in text]
        if not text.strip():
            raise ValueError('The query is empty. Say what the video shows.')
        answer = self._answer(text, k, **options)
        answer.unknown_words = [x for x in text.split() if 'zz' in x]
        answer.cut_at = 300 if len(text) > 300 else None
        if options.get('reject'):
            answer.p_value = 0.001 if 'nothing' in text else 0.7
            answer.nothing_found = answer.p_value <= options['reject']
        return answer

    def search_video(self, path: str, k: int = 10, **options: Any) -> Any:
        content = Path(path).read_bytes()
        if b'video' in content[:40]:
            raise VideoReadError(f'{path} is no video')
        return self._answer(str(len(content)), k, **options)

    def _answer(
        self,
        seed: str,
        k: int,
        offset: int = 0,
        shortlist: int = 100,
        where: MomentFilter | None = None,
        per_video: int = 0,
        reject: float | None = None,
    ) -> SearchAnswer:
        allowed = [
            x for x in self.index.moments.values() if _allows(where, x.file)
        ]
        hits = [self._hit(seed, moment) for moment in allowed]
        hits.sort(key=lambda hit: -hit.similarity)
        if per_video:
            groups: dict[str, list[SearchHit]] = {}
            for hit in hits:
                groups.setdefault(hit.path, []).append(hit)
            hits = [
                SearchHit(**{**vars(own[0]), 'others': tuple(own[1:])})
                for own in groups.values()
            ]
        return SearchAnswer(
            hits[offset : offset + k],
            offset + k < len(hits),
            scored=min(max(shortlist, k), len(allowed)) or len(allowed),
            total=len(allowed),
        )

    def _hit(self, seed: str, moment: Moment) -> SearchHit:
        words = f'{seed} {moment.moment_id}'.encode('utf-8', 'replace')
        share = zlib.crc32(words) / 2**32
        file = moment.file
        return SearchHit(
            moment.moment_id,
            file.path,
            moment.start,
            moment.end,
            moment.start + share * (moment.end - moment.start),
            math.nan if 'unscored' in seed else 10 * share,
            share,
            file.duration,
            file.size,
            file.changed,
            file.tags,
        )


def _allows(where: MomentFilter | None, file: IndexedFile) -> bool:
    if not where:
        return True
    if where.glob:
        fits = fnmatch(file.path, where.glob)
    else:
        fits = f'{file.path}/'.startswith(f'{where.path.rstrip("/")}/')
    seconds = file.changed / 1e9
    return (
        (fits or not where.path)
        and (where.after is None or seconds >= where.after)
        and (where.before is None or seconds < where.before)
        and file.duration >= (where.min_duration or 0)
        and file.duration <= (where.max_duration or math.inf)
        and set(where.tags) <= set(file.tags)
    )


def moments_of(path: Path, first: int, duration: float) -> list[Moment]:
    """Cut a file into moments of four seconds."""
    status = os.stat(path)
    tags = ('film',) if path.suffix == '.webm' else ()
    file = IndexedFile(
        str(path), status.st_size, status.st_mtime_ns, duration, tags=tags
    )
    return [
        Moment(first + n, file, 4.0 * n, min(4.0 * n + 4, duration))
        for n in range(max(1, math.ceil(duration / 4)))
    ]
