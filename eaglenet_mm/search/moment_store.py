"""What an index needs of the place where it is kept."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError, IndexWriteError
from eaglenet_mm.search.records import (
    IndexedFile,
    Moment,
    MomentFilter,
    StoredMoment,
    checksum,
)


class MomentStore(ABC):
    """Files, and their moments as columns of bytes.

    Every change is one transaction: all of it is there afterwards, whatever
    happens to the process, or nothing. What is read is checked against the
    checksum of its row.

    Raises ``KeyError`` for numbers and files that are not there,
    :class:`DamagedIndexError` for what is not what was written, and
    :class:`IndexWriteError` for what cannot be written.

    Args:
        where (str): Path or address.
        writable (bool): Whether it will be changed.
    """

    def __init__(self, where: str, writable: bool) -> None:
        self.where = where
        self._writable = writable

    @classmethod
    @abstractmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> MomentStore:
        """Make an empty store, open for writing.

        ``about`` is plain data; of it, ``layout`` is that of the
        rows, see :class:`~eaglenet_mm.search.records.MomentLayout`.
        """

    @classmethod
    @abstractmethod
    def open(cls, where: str, writable: bool = False) -> MomentStore:
        """Open a store."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is open; harmless when repeated."""

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """dict: Plain data of the index, as last committed."""

    @abstractmethod
    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data of the index."""

    @abstractmethod
    def version(self) -> Any:
        """Something that differs after every commit, of whichever process."""

    def snapshot(self) -> AbstractContextManager[Any]:
        """Read from one commit in a ``with`` block; others may wait."""
        return nullcontext()

    @abstractmethod
    def files(self) -> dict[str, IndexedFile]:
        """List the files by path, unreadable ones too."""

    @abstractmethod
    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments, int64, ascending; of files that a filter allows."""

    @abstractmethod
    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file, int64, in the order of time."""

    @abstractmethod
    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Describe moments, in the order of ``ids``."""

    @abstractmethod
    def vectors(self, ids: Sequence[int]) -> list[bytes]:
        """Read vectors in the order of ``ids``."""

    @abstractmethod
    def take(self, ids: Sequence[int], thumbnails: bool) -> list[StoredMoment]:
        """Read rows in the order of ``ids``, without their vectors.

        Thumbnails are left empty unless they are asked for.
        """

    @abstractmethod
    def thumbnail(self, moment_id: int) -> bytes:
        """Read a JPEG; errors as for :meth:`take`."""

    @abstractmethod
    def replace(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> list[int]:
        """Put files in the place of what was known of them.

        Gives the numbers of the new moments, in their order.
        """

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Take out files, which must be there."""

    @abstractmethod
    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files, which must be there, tags in the place of theirs."""

    @abstractmethod
    def verify(self) -> dict[str, str]:
        """Read everything, and tell by path which files have damaged rows.

        What is damaged beyond rows is an error.
        """

    def repair(self) -> dict[str, str]:
        """Take out files with damaged rows, and tell what was wrong."""
        damaged = self.verify()
        self.remove(damaged)
        return damaged

    def _require_writable(self) -> None:
        if not self._writable:
            raise IndexWriteError(
                f'{self.where} is not open for writing. Load it with '
                'writable=True to change it.'
            )

    def _check(self, crc: int, name: str, *parts: Any) -> None:
        """Refuse a row that is not what was written."""
        try:
            is_whole = checksum(*parts) == crc
        except (TypeError, OverflowError, ValueError):
            is_whole = False
        if not is_whole:
            raise self._damaged(name)

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(
            f'{self.where} is damaged ({what}). Restore it from a copy, or '
            'run tools/index.py with --repair, which reads those videos again.'
        )


def in_order(ids: Sequence[int], found: Mapping[int, Any]) -> list:
    """Bring what was found of moments into the order of their numbers."""
    missing = [x for x in ids if x not in found]
    if missing:
        raise KeyError(f'The index has no moment {missing[0]}.')
    return [found[x] for x in ids]


def store_kind(where: str | os.PathLike) -> type[MomentStore]:
    """Choose the store for an address.

    A URI (``s3://...``) and a path that ends with ``.lance`` are Lance
    datasets, any other path is an SQLite file.
    """
    text = os.fspath(where)
    if '://' in text or text.rstrip('/').endswith('.lance'):
        from eaglenet_mm.search.lance_store import LanceStore

        return LanceStore
    from eaglenet_mm.search.sqlite_store import SQLiteStore

    return SQLiteStore
