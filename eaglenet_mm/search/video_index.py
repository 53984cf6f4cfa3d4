"""An index of videos: what a search needs, prepared once."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from mmengine.logging import print_log

from .errors import IndexWriteError
from .index_changes import IndexChanges
from .index_folder import IndexFolder
from .index_manifest import IndexManifest
from .model_identity import ModelIdentity
from .part_list import PartList
from .precision import check_precision


class VideoIndex(IndexChanges):
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
