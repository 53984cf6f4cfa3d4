"""Bringing an index up to date with video files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mmengine.logging import print_log

from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.search.records import IndexedFile, Moments
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable
from eaglenet_mm.utils.progress import Progress


@dataclass
class IndexingReport:
    """What became of the files."""

    added: list[str] = field(default_factory=list)
    #: Those that have changed since.
    updated: list[str] = field(default_factory=list)
    unchanged: int = 0
    #: Those that could not be read, wholly or in part, now or before: why.
    unreadable: dict[str, str] = field(default_factory=dict)
    #: Files of the index that no longer exist.
    gone: list[str] = field(default_factory=list)
    #: Files of the folders that were not looked at, by their ending.
    passed_over: dict[str, int] = field(default_factory=dict)


class VideoIndexer:
    """Encodes videos into an index.

    ``video_batch`` videos, or segments, are encoded together; so many may
    have to be encoded again after an interruption.
    """

    def __init__(
        self,
        encode: Callable[[ReadMoments, Sequence[str]], Moments],
        reader: MomentReader,
        video_batch: int = 1,
    ) -> None:
        self.encode = encode
        self.reader = reader
        self.video_batch = video_batch

    def update(
        self,
        index: VideoIndex,
        paths: Sequence[str],
        *,
        retry: bool = False,
    ) -> IndexingReport:
        """Add the files, by absolute paths, that are new or have changed.

        Every file is in the index as soon as it is finished, so a run that
        was stopped goes on where it was. ``retry``: those that could not be
        read are tried again although they have not changed.
        """
        known, report = index.files, IndexingReport()
        wanted: dict[str, tuple[int, int]] = {}
        for path in paths:
            state = identify(path)
            old = known.get(path)
            if old is None or (old.size, old.changed) != state:
                wanted[path] = state
                (report.added if old is None else report.updated).append(path)
            elif old.error and retry:
                wanted[path] = state
                report.updated.append(path)
            else:
                report.unchanged += 1
                if old.error:
                    report.unreadable[path] = old.error
        report.gone = sorted(p for p in known if not os.path.isfile(p))
        self._add(index, wanted, report)
        return report

    def _add(
        self,
        index: VideoIndex,
        wanted: dict[str, tuple[int, int]],
        report: IndexingReport,
    ) -> None:
        """Read and encode files, a batch of rows at a time."""
        if not wanted:
            return
        progress = Progress('videos', len(wanted))
        pieces: dict[str, list[Moments]] = {}
        errors: dict[str, str] = {}
        waiting: list[tuple[str, ReadMoments, bool]] = []

        def encode_waiting() -> None:
            encoded = self._encode([(p, found) for p, found, _ in waiting])
            for (path, found, is_last), rows in zip(
                waiting, encoded, strict=True
            ):
                if found.error:
                    errors.setdefault(path, found.error)
                if rows is not None:
                    pieces.setdefault(path, []).append(rows)
                if not is_last:
                    continue
                file = IndexedFile(
                    path,
                    *wanted[path],
                    float(found.duration),
                    errors.pop(path, ''),
                )
                own = pieces.pop(path, [])
                index.add(file, Moments.join(own) if own else None)
                _tell(file, bool(own), report)
                progress.update(1)
            waiting.clear()

        for piece in self.reader.read(list(wanted)):
            waiting.append(piece)
            rows = sum(len(found.frames) for _, found, _ in waiting)
            if rows >= self.video_batch or not rows:
                encode_waiting()
        encode_waiting()
        progress.close()

    def _encode(
        self, pieces: Sequence[tuple[str, ReadMoments]]
    ) -> list[Moments | None]:
        """Encode what was read, in calls of at most a batch."""
        joined, names = ReadMoments(), []
        for path, found in pieces:
            joined.frames += found.frames
            joined.frame_times += found.frame_times
            joined.spans += found.spans
            joined.thumbnails += found.thumbnails
            names += [path] * len(found.frames)
        size = self.video_batch
        blocks = [
            self.encode(joined.part(x, x + size), names[x : x + size])
            for x in range(0, len(names), size)
        ]
        rows = Moments.join(blocks) if blocks else None
        encoded: list[Moments | None] = []
        first = 0
        for _, found in pieces:
            count = len(found.frames)
            encoded.append(
                rows.part(first, first + count) if rows and count else None
            )
            first += count
        return encoded


def _tell(file: IndexedFile, is_indexed: bool, report: IndexingReport) -> None:
    """Log and note what could not be read."""
    if not file.error:
        return
    report.unreadable[file.path] = file.error
    print_log(
        printable(
            f'{file.path} is {"in part" if is_indexed else "not"} indexed: '
            f'{file.error}'
        ),
        logger='current',
        level=logging.WARNING,
    )
