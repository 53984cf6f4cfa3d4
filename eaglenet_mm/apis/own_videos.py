"""Bringing an index up to date with video files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log

from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.search.records import IndexedFile, Moments
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.progress import Progress


@dataclass
class IndexingReport:
    """What became of the files.

    Args:
        added (list[str]): New ones.
        updated (list[str]): Ones that have changed since.
        unchanged (int): Ones that were in the index already.
        unreadable (dict[str, str]): Ones that could not be read, wholly or
            in part, now or before, and why.
        gone (list[str]): Files of the index that no longer exist.
    """

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


class VideoIndexer:
    """Encodes videos into an index.

    Args:
        encode (Callable): Turns frames of one video or segment (uint8, shape
            ``(n, 3, H, W)``) into :class:`EncodedMoment`.
        reader (MomentReader): Reads them.
    """

    def __init__(self, encode: Any, reader: MomentReader) -> None:
        self.encode = encode
        self.reader = reader

    def update(
        self,
        index: VideoIndex,
        paths: Sequence[str],
        *,
        retry: bool = False,
    ) -> IndexingReport:
        """Add the files that are new or have changed.

        Every file is in the index as soon as it is finished, so a run that
        was stopped goes on where it was.

        Args:
            index (VideoIndex): The index, to be changed.
            paths (Sequence[str]): Absolute paths of the files.
            retry (bool): Whether files that could not be read are tried
                again although they have not changed. Default: False.

        Returns:
            IndexingReport: What became of them.

        Raises:
            IndexWriteError: If the index cannot be written.
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
        if not wanted:
            return
        progress = Progress('videos', len(wanted))
        pieces: dict[str, list[Moments]] = {}
        errors: dict[str, str] = {}
        for path, found, is_last in self.reader.read(list(wanted)):
            if found.error:
                errors.setdefault(path, found.error)
            if found.frames:
                pieces.setdefault(path, []).append(self._encode(found))
            if not is_last:
                continue
            size, changed = wanted[path]
            file = IndexedFile(
                path,
                size,
                changed,
                float(found.duration),
                errors.pop(path, ''),
            )
            own = pieces.pop(path, [])
            index.add(file, Moments.join(own) if own else None)
            if file.error:
                report.unreadable[path] = file.error
                print_log(
                    f'{path} is {"in part" if own else "not"} indexed: '
                    f'{file.error}',
                    logger='current',
                    level=logging.WARNING,
                )
            progress.update(1)
        progress.close()

    def _encode(self, found: ReadMoments) -> Moments:
        """Encode what was read in one go."""
        return Moments.join(
            [
                self.encode(torch.from_numpy(frames), times, span, thumbnail)
                for frames, times, span, thumbnail in zip(
                    found.frames,
                    found.frame_times,
                    found.spans,
                    found.thumbnails,
                    strict=True,
                )
            ]
        )
