"""Bringing an index up to date with video files."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.logging import print_log

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_pipeline import Span
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.search.records import IndexedFile, Moments
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable
from eaglenet_mm.utils.progress import Progress

#: A piece of a video file: its path, and what to read of it if not all.
Piece = tuple[str, Span | None]


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

    def tell(self, file: IndexedFile, is_indexed: bool) -> None:
        """Log and note what could not be read of a file."""
        if file.error:
            self.unreadable[file.path] = file.error
            kind = 'in part' if is_indexed else 'not'
            print_log(
                printable(f'{file.path} is {kind} indexed: {file.error}'),
                logger='current',
                level=logging.WARNING,
            )


@dataclass
class VideoIndexer:
    """Encodes videos into an index.

    ``video_batch`` videos, or segments, are encoded together; so many may
    have to be encoded again after an interruption.
    """

    encoder: RetrieverEncoder
    num_workers: int = 2
    video_batch: int = 1

    def update(
        self,
        index: VideoIndex,
        pieces: Mapping[str, Piece],
        *,
        retry: bool = False,
    ) -> IndexingReport:
        """Add the files that are new or have changed.

        Every file is in the index as soon as it is finished, so a run that
        was stopped goes on where it was. ``pieces`` go by the names they
        have in the index, which for whole files are absolute paths.
        """
        wanted, report = find_changes(index.files, pieces, retry=retry)
        if not wanted:
            return report
        progress = Progress('videos', len(wanted))
        known = index.files
        read = self.read(
            {name: pieces[name] for name in wanted}, index.segment
        )
        for name, moments, duration, error in read:
            old = known.get(name)
            file = IndexedFile(
                name,
                *wanted[name],
                duration,
                error,
                () if old is None else old.tags,
            )
            index.add(file, moments)
            report.tell(file, moments is not None)
            progress.update(1)
        progress.close()
        return report

    def read(
        self, pieces: Mapping[str, Piece], segment: float
    ) -> Generator[tuple[str, Moments | None, float, str], None, None]:
        """Read and encode files, as they are finished.

        Yields a name, its rows if there are any, the duration of the file in
        seconds, and what could not be read.
        """
        rows: dict[str, list[Moments]] = {}
        errors: dict[str, str] = {}
        waiting: list[tuple[str, ReadMoments, bool]] = []
        for piece in self._frames(pieces, segment):
            waiting.append(piece)
            count = sum(len(found.frames) for _, found, _ in waiting)
            if 0 < count < self.video_batch:
                continue
            yield from self._finished(waiting, rows, errors)
        yield from self._finished(waiting, rows, errors)

    def _frames(
        self, pieces: Mapping[str, Piece], segment: float
    ) -> Generator[tuple[str, ReadMoments, bool], None, None]:
        """Read frames of each piece, and say whether they are its last."""
        reader = MomentReader(
            self.encoder.pipeline,
            segment=segment,
            num_workers=self.num_workers,
        )
        names = {path: name for name, (path, _) in pieces.items()}
        are_files = all(span is None for _, span in pieces.values())
        if are_files and len(names) == len(pieces):
            for path, found, is_last in reader.read(list(names)):
                yield names[path], found, is_last
            return
        order = list(pieces)
        for place, found in reader.read_pieces(list(pieces.values())):
            yield order[place], found, True

    def _finished(
        self,
        waiting: list[tuple[str, ReadMoments, bool]],
        rows: dict[str, list[Moments]],
        errors: dict[str, str],
    ) -> Generator[tuple[str, Moments | None, float, str], None, None]:
        """Encode what waits, and hand out the files that are complete."""
        encoded = self._encode([(name, found) for name, found, _ in waiting])
        for (name, found, is_last), own in zip(waiting, encoded, strict=True):
            if found.error:
                errors.setdefault(name, found.error)
            if own is not None:
                rows.setdefault(name, []).append(own)
            if is_last:
                parts = rows.pop(name, [])
                yield (
                    name,
                    Moments.join(parts) if parts else None,
                    float(found.duration),
                    errors.pop(name, ''),
                )
        waiting.clear()

    def _encode(
        self, pieces: Sequence[tuple[str, ReadMoments]]
    ) -> list[Moments | None]:
        """Encode what was read, in calls of at most a batch."""
        joined, names = ReadMoments(), []
        for name, found in pieces:
            joined.frames += found.frames
            joined.frame_times += found.frame_times
            joined.spans += found.spans
            joined.thumbnails += found.thumbnails
            names += [name] * len(found.frames)
        size = self.video_batch
        blocks = [
            self.encoder.encode_moments(
                joined.part(x, x + size), names[x : x + size]
            )
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


def find_changes(
    known: Mapping[str, IndexedFile],
    pieces: Mapping[str, Piece],
    *,
    retry: bool = False,
) -> tuple[dict[str, tuple[int, int]], IndexingReport]:
    """Compare an index with files.

    Gives size and time of change of those to read, by name, and the report
    so far.
    """
    report = IndexingReport()
    wanted: dict[str, tuple[int, int]] = {}
    for name, (path, _) in pieces.items():
        state, old = identify(path), known.get(name)
        if old is None:
            report.added.append(name)
        elif (old.size, old.changed) != state or (old.error and retry):
            report.updated.append(name)
        else:
            report.unchanged += 1
            if old.error:
                report.unreadable[name] = old.error
            continue
        wanted[name] = state
    report.gone = sorted(p for p in known if not os.path.isfile(p))
    return wanted, report
