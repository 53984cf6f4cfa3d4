"""An index of videos: what a search needs, prepared once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import VideoIndexError
from .index_folder import IndexFolder
from .index_manifest import IndexManifest
from .index_part import IndexPart
from .index_rows import IndexRows
from .model_identity import ModelIdentity
from .part_changes import renumber
from .part_list import PartList
from .precision import check_precision
from .records import IndexedFile, Moments

#: Parts after which small ones are joined. Each is a file of its own: more
#: make loading slower, fewer write the same bytes more often.
_JOIN_EVERY = 64


class VideoIndex(IndexRows):
    """Videos, or their segments, as rows that a search reads.

    A row holds the vector of the first stage, the state that the head
    prepared (which the second stage needs), unit frames and their times, and
    a thumbnail. Rows have numbers that never change. An index lives in memory
    until it is saved; one that is loaded reads the state of a row from the
    disk when it is asked for, so that only vectors must fit into memory.

    With ``writable=True`` every change is on the disk when its method
    returns, whatever happens to the process afterwards. One process may
    write; others may read meanwhile, and see what was there when they loaded.

    Args:
        model (ModelIdentity): The model that made the rows.
        precision (str): ``'float32'``, ``'float16'`` or ``'int8'`` of vectors
            and state (vectors stay float16 for int8). Default: 'float32',
            with which scores are those of a test.
        segment (float): Seconds of a segment; 0 for whole videos.
            Default: 0.

    Example:
        >>> index = VideoIndex.load('holidays.index')
        >>> len(index), len(index.files)
        (1204, 311)
    """

    def __init__(
        self,
        model: ModelIdentity,
        *,
        precision: str = 'float32',
        segment: float = 0.0,
    ) -> None:
        check_precision(precision)
        self.model = model
        self.precision = precision
        self.segment = segment
        self._folder: IndexFolder | None = None
        self._parts = PartList()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: ModelIdentity,
        *,
        precision: str = 'float32',
        segment: float = 0.0,
    ) -> VideoIndex:
        """Make an empty index on the disk, and open it for writing.

        Raises:
            IndexWriteError: If the folder cannot be made or is not empty.
        """
        index = cls(model, precision=precision, segment=segment)
        manifest = IndexManifest(model.to_json(), precision, segment)
        index._folder = IndexFolder.create(Path(folder), manifest)
        return index

    @classmethod
    def load(cls, folder: str | Path, *, writable: bool = False) -> VideoIndex:
        """Open an index.

        Args:
            folder (str | Path): As :meth:`save` or ``tools/index.py`` wrote.
            writable (bool): Whether it will be changed. Default: False.

        Raises:
            FileNotFoundError: If there is none.
            DamagedIndexError: If it is not what was written, or of another
                version.
            IndexInUseError: If it is to be written and another process does.
        """
        opened = IndexFolder.open(Path(folder), writable)
        try:
            parts = opened.read_parts()
            manifest = opened.manifest
            index = cls(
                ModelIdentity.from_json(manifest.model, str(folder)),
                precision=manifest.precision,
                segment=manifest.segment,
            )
        except BaseException:
            opened.close()
            raise
        index._folder = opened
        index._parts.next_sequence = manifest.next_sequence
        index._parts.next_row_id = manifest.next_row_id
        index._parts.remove(manifest.removed)
        for sequence, part in parts:
            index._parts.append(sequence, part)
        return index

    def save(self, folder: str | Path, *, precision: str = '') -> None:
        """Write a copy, without what was removed.

        Args:
            folder (str | Path): A new or empty one.
            precision (str): Of the copy; another than the index has only if
                that is float32. Default: the same.

        Raises:
            IndexWriteError: If it cannot be written.
            VideoIndexError: If the index is not exact enough.
        """
        with VideoIndex.create(
            folder,
            self.model,
            precision=precision or self.precision,
            segment=self.segment,
        ) as copy:
            copy.merge(self)
            copy.compact()

    def close(self) -> None:
        """Let others write; reading goes on."""
        if self._folder is not None:
            self._folder.close()

    def __enter__(self) -> VideoIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def folder(self) -> Path | None:
        """Path: Where the index is; None if it is in memory."""
        return None if self._folder is None else self._folder.path

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
        number = self._parts.next_sequence
        removed = {**self._parts.removed, **dict.fromkeys(paths, number)}
        if self._folder is not None:
            self._require_writer()
            self._write_manifest(removed)
        self._parts.remove(removed)
        return before - len(self)

    def merge(self, other: VideoIndex, *, replace: bool = False) -> None:
        """Take over the files of another index of the same model.

        Args:
            other (VideoIndex): The other index, which stays as it is.
            replace (bool): Whether files that both have are taken from the
                other one. Default: False, they are an error.

        Raises:
            OtherModelError: If another model made it.
            VideoIndexError: If both have a file, or segments differ, or the
                other one is less exact.
        """
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
        """Join small parts, and drop what was removed from them."""
        first = self._parts.tail()
        if len(self._parts.parts) - first < 2:
            return
        joined = self._parts.join(first)
        number = self._parts.next_sequence
        new = []
        if joined.files:
            if self._folder is not None:
                self._require_writer()
                joined = self._folder.append(joined, number)
            new = [(number, joined)]
        parts = self._parts.with_tail(first, new)
        parts.next_sequence = number + 1
        self._parts = parts
        if self._folder is not None:
            self._write_manifest(parts.removed, joined=True)

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
            self.compact()

    def _require_writer(self) -> None:
        if self._folder is not None and not self._folder.is_writable:
            raise VideoIndexError(
                f'The index {self._folder.path} was opened for reading. Load '
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
