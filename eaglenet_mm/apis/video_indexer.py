"""Bringing an index up to date with video files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mmengine.logging import print_log

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import (
    MomentReader,
    Piece,
    ReadMoment,
)
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
        read = self.read(
            {name: pieces[name] for name in wanted}, index.segment
        )
        for name, moments, duration, error in read:
            file = replace(wanted[name], duration=duration, error=error)
            index.add(file, moments)
            report.tell(file, moments is not None)
            progress.update(1)
        progress.close()
        return report

    def read(
        self, pieces: Mapping[str, Piece], segment: float
    ) -> Iterator[tuple[str, Moments | None, float, str]]:
        """Read and encode files, as they are finished.

        Yields a name, its rows if there are any, the duration of the file in
        seconds, and what could not be read.
        """
        reader = MomentReader(
            self.encoder.pipeline,
            segment=segment,
            num_workers=self.num_workers,
        )
        waiting: list[tuple[str, ReadMoment]] = []
        ended: list[tuple[str, float]] = []
        rows: dict[str, list[Moments]] = {name: [] for name in pieces}
        errors: dict[str, str] = {}

        def finished() -> Iterator[tuple[str, Moments | None, float, str]]:
            """Encode what waits, and hand out the files that are complete."""
            for x in range(0, len(waiting), self.video_batch):
                batch = waiting[x : x + self.video_batch]
                names = [name for name, _ in batch]
                encoded = self.encoder.encode_moments(
                    [moment for _, moment in batch], names
                )
                for row, name in enumerate(names):
                    rows[name].append(encoded.part(row, row + 1))
            for name, duration in ended:
                own = rows.pop(name)
                moments = Moments.join(own) if own else None
                yield name, moments, duration, errors.pop(name, '')
            waiting.clear()
            ended.clear()

        for name, found, is_last in reader.read(pieces):
            waiting += [(name, moment) for moment in found.moments]
            if found.error:
                errors.setdefault(name, found.error)
            if is_last:
                ended.append((name, float(found.duration)))
            if not 0 < len(waiting) < self.video_batch:
                yield from finished()
        yield from finished()


def find_changes(
    known: Mapping[str, IndexedFile],
    pieces: Mapping[str, Piece],
    *,
    retry: bool = False,
) -> tuple[dict[str, IndexedFile], IndexingReport]:
    """Compare an index with files.

    Gives those to read as they are now, by name, and the report so far.
    """
    report = IndexingReport()
    wanted: dict[str, IndexedFile] = {}
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
        wanted[name] = IndexedFile(name, *state, tags=old.tags if old else ())
    report.gone = sorted(p for p in known if not os.path.isfile(p))
    return wanted, report
