"""What an index needs of the place where it is kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexInUseError,
    IndexWriteError,
    VideoIndexError,
)
from eaglenet_mm.search.records import (
    MOMENT_PARTS,
    PARTS,
    IndexedFile,
    Moment,
    MomentFilter,
    StoredMoment,
    checksum,
)

VERSION = 2
SECONDS_TO_WAIT = 60  # for other writers
_BLOCK = 256  # rows that are verified together


class MomentStore(ABC):
    """Files, and their moments as columns of bytes.

    Every change is one transaction: all of it is there afterwards, whatever
    happens to the process, or nothing. What is read is checked against the
    checksum of its row. Stores keep the same columns,
    :data:`~eaglenet_mm.search.records.FACTS` of a file and
    :data:`~eaglenet_mm.search.records.PARTS` of a moment.

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
    def about(self) -> dict[str, Any]:
        """dict: Plain data of the index, as last committed."""
        crc, text = self._read_about()
        self._check(crc, 'what it says of itself', text)
        return json.loads(text)

    @abstractmethod
    def _read_about(self) -> Sequence[Any]:
        """Read the checksum and the text of :attr:`about`."""

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

    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Describe moments, in the order of ``ids``."""
        rows = self._read(['videos', 'moments'], ids)
        return [
            Moment(number, IndexedFile.from_row(facts), start, end)
            for number, (*facts, start, end) in zip(ids, rows, strict=True)
        ]

    def vectors(self, ids: Sequence[int]) -> list[bytes]:
        """Read vectors in the order of ``ids``."""
        return [vector for (vector,) in self._read(['vectors'], ids)]

    def take(self, ids: Sequence[int], thumbnails: bool) -> list[StoredMoment]:
        """Read rows in the order of ``ids``, without their vectors.

        Thumbnails are left empty unless they are asked for.
        """
        parts = ['moments', 'features', *['thumbnails'] * thumbnails]
        return [
            StoredMoment(start, end, b'', *rest)
            for start, end, *rest in self._read(parts, ids)
        ]

    def thumbnail(self, moment_id: int) -> bytes:
        """Read a JPEG; errors as for :meth:`take`."""
        return self._read(['thumbnails'], [moment_id])[0][0]

    def _read(self, parts: Sequence[str], ids: Sequence[int]) -> list[list]:
        """Read and check parts of moments, in the order of ``ids``."""
        found = {}
        for number, *row in self._select(parts, ids):
            values: list[Any] = []
            for part in parts:
                width = len(PARTS[part])
                *own, crc = row[: width + 1]
                self._check(crc, f'moment {number}', *own)
                values += own
                del row[: width + 1]
            found[number] = values
        missing = [x for x in ids if x not in found]
        if missing:
            raise KeyError(f'The index has no moment {missing[0]}.')
        return [found[x] for x in ids]

    @abstractmethod
    def _select(
        self, parts: Sequence[str], ids: Sequence[int]
    ) -> Iterable[Sequence[Any]]:
        """Read moments that are there: number, and parts with checksums."""

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

    def verify(self) -> dict[str, str]:
        """Read everything, and tell by path which files have damaged rows.

        What is damaged beyond rows is an error.
        """
        self.files()
        damaged: dict[str, str] = {}
        waiting = [x.tolist() for x in self.ids().split(_BLOCK)]
        while waiting:
            some = waiting.pop()
            try:
                self._read(MOMENT_PARTS, some)
            except (DamagedIndexError, KeyError) as err:
                if len(some) > 1:
                    waiting += [[x] for x in some]
                    continue
                try:
                    damaged[self.moments(some)[0].file.path] = str(err)
                except KeyError:  # it is listed, and is not there
                    raise self._damaged(f'moment {some[0]}') from err
        return damaged

    def repair(self) -> dict[str, str]:
        """Take out files with damaged rows, and tell what was wrong."""
        damaged = self.verify()
        self.remove(damaged)
        return damaged

    def _file(self, row: Sequence[Any]) -> IndexedFile:
        """Check and read :data:`FACTS` and their checksum."""
        *facts, crc = row
        self._check(crc, f'file {facts[0]}', *facts)
        return IndexedFile.from_row(facts)

    def _require_writable(self) -> None:
        if not self._writable:
            raise IndexWriteError(
                f'{self.where} is not open for writing. Load it with '
                'writable=True to change it.'
            )

    def _check_version(self, version: int | None) -> None:
        """Refuse what is of another program, or of another release."""
        if version is None:
            raise DamagedIndexError(
                f'{self.where} is empty, or a file of another program. Give '
                'the name of an index; or delete it, if it was left by a run '
                'that was stopped while it made one.'
            )
        if version != VERSION:
            raise DamagedIndexError(
                f'{self.where} is an index of version {version}, but this '
                f'release reads version {VERSION}. Use the release that made '
                'it, or make it again.'
            )

    def _check(self, crc: int, name: str, *parts: Any) -> None:
        """Refuse a row that is not what was written."""
        try:
            is_whole = checksum(*parts) == crc
        except (TypeError, OverflowError, ValueError):
            is_whole = False
        if not is_whole:
            raise self._damaged(name)

    def _check_count(self, wanted: int, found: int, what: str) -> None:
        """Refuse a store that has lost rows."""
        if wanted != found:
            raise self._damaged(f'{wanted} {what}, but {found} are found')

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(
            f'{self.where} is damaged ({what}). Restore it from a copy, or '
            'run tools/index.py with --repair, which reads those videos again.'
        )


@contextlib.contextmanager
def told(where: str, writing: bool = False) -> Iterator[None]:
    """Turn what SQLite, Lance and the system say into our errors."""
    try:
        yield
    except VideoIndexError:
        raise
    except BaseException as err:
        # a panic in Rust is no Exception
        kinds = OSError, ValueError, RuntimeError, sqlite3.Error
        is_panic = type(err).__name__ == 'PanicException'
        if not isinstance(err, kinds) and not is_panic:
            raise
        # Lance ends with the place in its source
        words = str(err).partition(', /home')[0][:300]
        if re.search('Dataset at path.*not found', words, re.DOTALL):
            raise missing(where) from err
        if re.search('already exists|File exists', words):
            raise IndexWriteError(
                f'{where} exists, so a new index cannot be made there. Give '
                'another name.'
            ) from err
        if words == 'database is locked':
            raise in_use(where) from err
        if '://' in where and re.search(_UNREACHED, words):
            kind = IndexWriteError if writing else VideoIndexError
            raise kind(
                f'{where} could not be reached: {words}. Check the address, '
                'the network, and the credentials in the environment '
                '(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, '
                'for a server of your own, AWS_ENDPOINT_URL; likewise '
                'GOOGLE_... or AZURE_...).'
            ) from err
        # SQLite has a class of its own for what cannot be done
        if writing and type(err) is not sqlite3.DatabaseError:
            raise IndexWriteError(
                f'{where} could not be written: {words}. Make room, or check '
                'the permissions of the file and its folder.'
            ) from err
        raise DamagedIndexError(
            f'{where} could not be read as an index: {words}. Check its '
            'permissions, restore it from a copy, run tools/index.py with '
            '--repair, or make it again.'
        ) from err


_UNREACHED = 'Generic|object store|region|credential|account'


def missing(where: str) -> FileNotFoundError:
    """Say that there is no index."""
    return FileNotFoundError(
        f'An index was expected at {where}, but there is none. Make it with '
        'tools/index.py.'
    )


def require_access(where: str, writable: bool) -> None:
    """Refuse what is there and may not be written as it should."""
    if writable and os.path.exists(where) and not os.access(where, os.W_OK):
        raise IndexWriteError(
            f'{where} may not be written. Check its permissions.'
        )


def in_use(where: str) -> IndexInUseError:
    """Say that others write for too long."""
    return IndexInUseError(
        f'Others have been writing {where} for more than {SECONDS_TO_WAIT} '
        'seconds. Wait for them, and try again.'
    )


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
