"""Changing the rows of an index."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from .errors import DamagedIndexError, IndexWriteError, VideoIndexError
from .index_folder import IndexFolder
from .index_part import IndexPart
from .index_rows import IndexRows
from .model_identity import ModelIdentity
from .part_changes import renumber
from .records import IndexedFile, Moments

#: Parts after which small ones are joined. Each is a file of its own: more
#: make loading slower, fewer write the same bytes more often.
_JOIN_EVERY = 64


class IndexChanges(IndexRows):
    """The writing side of an index."""

    model: ModelIdentity
    precision: str
    segment: float
    _folder: IndexFolder | None

    def add(self, file: IndexedFile, moments: Moments | None) -> Tensor:
        """Add a file, in the place of what was known of it.

        Args:
            file (IndexedFile): The file, with its ``error`` if it could not
                be read.
            moments (Moments, optional): Its rows; None if unreadable.

        Returns:
            Tensor: Numbers of the new rows, int64, shape ``(n,)``.

        Raises:
            IndexWriteError: If it cannot be written; nothing has changed.
        """
        return self.add_many([(file, moments)])

    def add_many(
        self, files: Sequence[tuple[IndexedFile, Moments | None]]
    ) -> Tensor:
        """Add files together: all of them are there afterwards, or none.

        Args:
            files (Sequence[tuple[IndexedFile, Moments | None]]): Different
                files, each as for :meth:`add`.

        Returns:
            Tensor: Numbers of the new rows, int64, shape ``(n,)``.

        Raises:
            IndexWriteError: If they cannot be written; nothing has changed.
        """
        first = self._parts.next_row_id
        part = IndexPart.of_files(files, first, self.precision)
        self._append(part)
        return torch.arange(first, first + len(part))

    def remove(self, paths: Iterable[str]) -> int:
        """Take files out.

        Args:
            paths (Iterable[str]): Their paths, as in :attr:`files`.

        Returns:
            int: How many rows are gone.

        Raises:
            KeyError: If a file is not in the index; nothing has changed.
        """
        paths, before = list(paths), len(self)
        unknown = [path for path in paths if path not in self._parts]
        if unknown:
            raise KeyError(
                f'{len(unknown)} files are not in the index, the first is '
                f'{unknown[0]}. Paths are absolute.'
            )
        if not paths:
            return 0
        number = self._parts.next_sequence
        removed = {**self._parts.removed, **dict.fromkeys(paths, number)}
        if self._folder is not None:
            self._require_writer()
            self._write_manifest(removed)
        self._parts.remove(removed)
        return before - len(self)

    def merge(self, other: IndexChanges, *, replace: bool = False) -> None:
        """Take over the files of another index of the same model.

        Part by part: after an error some files may have been taken over.

        Args:
            other (VideoIndex): The other index, which stays as it is.
            replace (bool): Whether files that both have are taken from the
                other one. Default: False, they are an error.

        Raises:
            OtherModelError: If another model made it.
            VideoIndexError: If both have a file, or segments differ, or the
                other one is less exact.
        """
        if other is self:
            raise VideoIndexError('An index cannot be merged with itself.')
        other.model.require(self.model, 'the other index')
        if other.segment != self.segment:
            raise VideoIndexError(
                f'The segments of one index are {self.segment:g} seconds, of '
                f'the other {other.segment:g}. Index with the same segments.'
            )
        both = sorted(self.files.keys() & other.files.keys())
        if both and not replace:
            raise VideoIndexError(
                f'{len(both)} files are in both indexes, the first is '
                f'{both[0]}. Remove them from one, or give replace=True.'
            )
        for (_, part), live in zip(
            other._parts.parts, other._parts.live_files(), strict=True
        ):
            if live:
                self._append(
                    renumber(
                        IndexPart.join([part], [live]),
                        self._parts.next_row_id,
                        kept=other.precision,
                        wanted=self.precision,
                    )
                )

    def compact(self) -> None:
        """Join small parts, and give back the space of what was removed.

        A part of which more than half counts is left as it is; :meth:`save`
        makes a copy without any waste.

        Raises:
            IndexWriteError: If there is no room; the index is as it was.
            DamagedIndexError: If a row is not what was written.
        """
        self._require_writer()
        places = self._parts.to_join()
        if not places:
            return
        joined = self._parts.join(places)
        number = self._parts.next_sequence
        if joined.files and self._folder is not None:
            joined = self._folder.append(joined, number)
        parts = self._parts.without(places)
        parts.next_sequence = number + 1
        if joined.files:
            parts.append(number, joined)
        self._parts = parts
        if self._folder is not None:
            self._write_manifest(parts.removed, joined=True)

    def tidy(self) -> None:
        """Compact where that goes, and say so where it does not.

        What was indexed is safe either way, so a lack of room for joining, or
        damage found by it, is no reason to stop.
        """
        try:
            self.compact()
        except (IndexWriteError, DamagedIndexError) as err:
            print_log(
                f'Parts of the index were not joined: {err}',
                logger='current',
                level=logging.WARNING,
            )

    def repair(self) -> list[str]:
        """Leave out the files whose rows are damaged.

        Returns:
            list[str]: Their paths.
        """
        self._require_writer()
        damaged = []
        for path in self.files:
            number, place = self._parts.place(path)
            part = self._parts.parts[number][1]
            rows = part.rows_of([place])
            try:
                if len(rows):
                    part.take(rows)
            except DamagedIndexError:
                damaged.append(path)
        self.remove(damaged)
        return damaged

    def verify(self) -> None:
        """Read every row.

        Raises:
            DamagedIndexError: If one is not what was written.
        """
        for number, _, rows in self._parts.live.by_part(self.row_ids):
            for block in rows.split(256):
                self._parts.parts[number][1].take(block)

    def _append(self, part: IndexPart) -> None:
        """Add a part, and join parts when there are many."""
        number = self._parts.next_sequence
        if self._folder is not None:
            self._require_writer()
            part = self._folder.append(part, number)
        self._parts.append(number, part)
        if len(self._parts.parts) % _JOIN_EVERY == 0:
            self.tidy()

    def _require_writer(self) -> None:
        if self._folder is not None and not self._folder.is_writable:
            raise VideoIndexError(
                f'The index {self._folder.path} is not open for writing. Load '
                'it with writable=True to change it.'
            )

    def _write_manifest(
        self, removed: dict[str, int], joined: bool = False
    ) -> None:
        """Bring the table of contents up to date."""
        assert self._folder is not None
        manifest = self._folder.manifest
        manifest.removed = removed
        manifest.next_row_id = self._parts.next_row_id
        if joined:
            numbers = [number for number, _ in self._parts.parts]
            self._folder.replace(numbers, self._parts.next_sequence)
        else:
            manifest.write(self._folder.path)
