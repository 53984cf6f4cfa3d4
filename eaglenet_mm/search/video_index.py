"""An index of videos: what a search needs, prepared once."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexWriteError,
    VideoIndexError,
)
from eaglenet_mm.search.index_folder import IndexFolder
from eaglenet_mm.search.index_manifest import IndexManifest
from eaglenet_mm.search.index_part import STATE, IndexPart
from eaglenet_mm.search.model_identity import ModelIdentity
from eaglenet_mm.search.part_changes import renumber
from eaglenet_mm.search.part_list import PartList
from eaglenet_mm.search.precision import check_precision, unpack
from eaglenet_mm.search.records import IndexedFile, IndexEntry, Moments

#: Parts after which small ones are joined. Each is a file of its own: more
#: make loading slower, fewer write the same bytes more often.
_JOIN_EVERY = 64


class VideoIndex:
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
        >>> model = ModelIdentity(weights='1f', settings='2e', frames='3d')
        >>> with VideoIndex.create('holidays.index', model) as index:
        ...     rows = index.add(IndexedFile('/holidays/a.mp4', 0, 0), None)
        >>> index = VideoIndex.load('holidays.index')
        >>> len(index), list(index.files)
        (0, ['/holidays/a.mp4'])
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
    def load(
        cls,
        folder: str | Path,
        *,
        writable: bool = False,
        repair: bool = False,
    ) -> VideoIndex:
        """Open an index.

        Args:
            folder (str | Path): As :meth:`save` or ``tools/index.py`` wrote.
            writable (bool): Whether it will be changed. Default: False.
            repair (bool): Whether to go on without what is damaged, which
                is logged; needs ``writable``. Default: False.

        Raises:
            FileNotFoundError: If there is none.
            DamagedIndexError: If it is not what was written, or of another
                version.
            IndexInUseError: If it is to be written and another process does.
        """
        opened = IndexFolder.open(Path(folder), writable)
        try:
            troubles: list[str] = []
            if repair:
                parts, troubles = opened.read_whole_parts()
            else:
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
        if repair:
            index._write_manifest(index._parts.removed, joined=True)
            troubles += [f'{path} is damaged' for path in index.repair()]
        for trouble in troubles:
            print_log(
                f'Left out of the index: {trouble}',
                logger='current',
                level=logging.WARNING,
            )
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
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise IndexWriteError(
                f'{folder} is not empty, so the index cannot be saved there. '
                'Give another folder.'
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(f'.{folder.name}.part')
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with VideoIndex.create(
                unfinished,
                self.model,
                precision=precision or self.precision,
                segment=self.segment,
            ) as copy:
                copy.merge(self)
                copy.compact()
            if folder.exists():
                folder.rmdir()
            os.replace(unfinished, folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

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

    def __len__(self) -> int:
        return len(self._parts.live.row_ids)

    @property
    def files(self) -> dict[str, IndexedFile]:
        """dict[str, IndexedFile]: By path; unreadable ones too."""
        return self._parts.files

    @property
    def row_ids(self) -> Tensor:
        """Tensor: Numbers of the rows, ascending, int64, shape ``(N,)``."""
        return self._parts.live.row_ids

    def entries(self, row_ids: Tensor) -> list[IndexEntry]:
        """Say what rows are.

        Args:
            row_ids (Tensor): Shape ``(n,)``.

        Raises:
            KeyError: If a row does not exist.
        """
        found = []
        for row_id, number, row in self._parts.live.locate(row_ids):
            part = self._parts.parts[number][1]
            start, end = part.tensors['spans'][row].tolist()
            file = part.files[int(part.tensors['file_of_row'][row])]
            found.append(IndexEntry(row_id, file, start, end))
        return found

    def rows_of_file(self, path: str) -> Tensor:
        """List the numbers of the rows of a file, shape ``(n,)``.

        Raises:
            KeyError: If it is not in the index.
        """
        if path not in self._parts:
            raise KeyError(f'{path} is not in the index. Paths are absolute.')
        number, place = self._parts.place(path)
        part = self._parts.parts[number][1]
        if not len(part):
            return torch.zeros(0, dtype=torch.int64)
        return part.tensors['row_ids'][part.rows_of([place])]

    def vectors(self, row_ids: Tensor) -> Tensor:
        """Read vectors of the first stage, float32, shape ``(n, C)``."""
        return self._gather('vectors', row_ids).float()

    def frame_times(self, row_ids: Tensor) -> Tensor:
        """Read times of frames in seconds, NaN if none, ``(n, F)``."""
        return self._gather('frame_times', row_ids)

    def read(self, row_ids: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Read the state and the unit frames of rows.

        Args:
            row_ids (Tensor): Shape ``(n,)``, at least one.

        Returns:
            tuple[dict[str, Tensor], Tensor]: State by name, float32, and
            frames, float32, shape ``(n, F, D)``.

        Raises:
            KeyError: If a row does not exist.
            DamagedIndexError: If a row is not what was written.
        """
        taken: dict[str, Tensor] = {}
        for number, places, rows in self._parts.live.by_part(row_ids):
            for name, piece in self._parts.parts[number][1].read(rows).items():
                _place(taken, name, piece, places, len(row_ids))
        frames = taken.pop('frames').float()
        state = {name[len(STATE) :]: kept for name, kept in taken.items()}
        return unpack(state), frames

    def thumbnail(self, row_id: int) -> bytes:
        """Read the JPEG of a row."""
        wanted = torch.tensor([row_id])
        _, number, row = self._parts.live.locate(wanted)[0]
        return self._parts.parts[number][1].thumbnail(row)

    def _gather(self, name: str, row_ids: Tensor) -> Tensor:
        """Read an eager tensor of rows."""
        taken: dict[str, Tensor] = {}
        for number, places, rows in self._parts.live.by_part(row_ids):
            piece = self._parts.parts[number][1].tensors[name][rows]
            _place(taken, name, piece, places, len(row_ids))
        return taken[name] if taken else torch.zeros(0, 0)

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

    def merge(self, other: VideoIndex, *, replace: bool = False) -> None:
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


def _place(
    taken: dict[str, Tensor],
    name: str,
    piece: Tensor,
    places: Tensor,
    count: int,
) -> None:
    """Put rows of a part where they belong among all rows asked for."""
    if name not in taken:
        taken[name] = piece.new_empty(count, *piece.shape[1:])
    taken[name][places] = piece
