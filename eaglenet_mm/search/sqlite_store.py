"""An index in one SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError
from eaglenet_mm.search.moment_store import (
    SECONDS_TO_WAIT,
    VERSION,
    MomentStore,
    missing,
    require_access,
    told,
)
from eaglenet_mm.search.records import (
    FACTS,
    MOMENT_PARTS,
    PARTS,
    IndexedFile,
    MomentFilter,
    StoredMoment,
    checksum,
    encode_path,
)
from eaglenet_mm.utils.durable_file import sync_folder

_APPLICATION = 0x45474C4D  # 'EGLM', to recognise our files
_MEMORY = ':memory:'
_ENDINGS = '-wal', '-shm'  # of what SQLite keeps beside a file

# The numbers of moments are never used again, so that readers can tell what
# is new. To the checksum of a row its number is added, and that of the file
# of a moment. Pages that have lost rows, and indexes that do not fit their
# tables, are no errors to SQLite: so rows are counted in two ways.
_SCHEMA = """
CREATE TABLE about (crc INTEGER NOT NULL, content TEXT NOT NULL);
CREATE TABLE videos (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    changed INTEGER NOT NULL, duration REAL NOT NULL, error TEXT NOT NULL,
    tags TEXT NOT NULL, num_moments INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE moments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    start REAL NOT NULL, end REAL NOT NULL, crc INTEGER NOT NULL,
    video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE);
CREATE INDEX moments_of_video ON moments (video);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    vector BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE features (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    times BLOB NOT NULL, features BLOB NOT NULL, state BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE thumbnails (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    thumbnail BLOB NOT NULL, crc INTEGER NOT NULL);
"""
_ALL_FACTS = f'{", ".join(FACTS)}, crc - id'


class SQLiteStore(MomentStore):
    """The store of one machine: one file, which can be copied when closed.

    Several processes may write, one after the other, while others read; a
    commit is on the disk when its method returns (``synchronous=FULL``). It
    may be used by several threads.
    """

    def __init__(self, where: str, writable: bool, connection: Any) -> None:
        super().__init__(where, writable)
        self._lock = threading.RLock()
        self._connection = connection
        self._facts_are_checked = False
        self._set_up()

    @classmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> SQLiteStore:
        """Make an empty store; see the base class."""
        if where == _MEMORY:
            return cls(where, True, _filled(_MEMORY, about))
        folder = Path(where).absolute().parent
        with told(where, writing=True):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix='.') as own:
                part = Path(own, 'part')
                _filled(part.as_uri(), about).close()
                Path(where).touch(exist_ok=False)  # so does one of two
                # what an index that was deleted has left would be read
                for end in _ENDINGS:
                    Path(where + end).unlink(missing_ok=True)
                os.replace(part, where)
            sync_folder(folder)
        return cls.open(where, writable=True)

    @classmethod
    def open(cls, where: str, writable: bool = False) -> SQLiteStore:
        """Open a store; see the base class."""
        if os.path.exists(os.path.join(where, 'index.json')):
            raise DamagedIndexError(
                f'{where} is an index of an earlier release, which kept what '
                'one head had prepared. Make it again with tools/index.py, '
                'under another name.'
            )
        if os.path.isdir(where):
            raise DamagedIndexError(
                f'{where} is a folder, but an index is a file. Give its name.'
            )
        if not os.path.exists(where):
            raise missing(where)
        with told(where, writing=writable), contextlib.ExitStack() as stack:
            connection = _connect(where, writable)
            stack.callback(connection.close)
            store = cls(where, writable, connection)
            stack.pop_all()
            return store

    def _set_up(self) -> None:
        is_ours = self._one('PRAGMA application_id') == _APPLICATION
        version = self._one('PRAGMA user_version') if is_ours else None
        self._check_version(version)
        # what an index from elsewhere brings along cannot act
        self._connection.execute('PRAGMA trusted_schema=OFF')
        self._connection.execute('PRAGMA foreign_keys=ON')
        self._connection.execute('PRAGMA synchronous=FULL')

    def close(self) -> None:
        """Close the file; see the base class."""
        with self._lock:
            self._connection.close()

    def _read_about(self) -> Sequence[Any]:
        rows = self._rows('SELECT crc, content FROM about')
        return rows[0] if rows else (0, '')

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data; see the base class."""
        with self._transaction() as run:
            run.execute(
                'UPDATE about SET crc = ?, content = ?',
                _said({**self.about, name: value}),
            )

    def version(self) -> Any:
        """Say which commit is read; see the base class."""
        return (
            self._one('PRAGMA data_version'),
            self._connection.total_changes,
        )

    def files(self) -> dict[str, IndexedFile]:
        """List the files; see the base class."""
        with self.snapshot():
            count = self._one(
                'SELECT count(*) FROM videos '
                'INDEXED BY sqlite_autoindex_videos_1'
            )
            rows = self._rows(
                f'SELECT {_ALL_FACTS} FROM videos NOT INDEXED ORDER BY path'
            )
        self._check_count(count, len(rows), 'files')
        return {x.path: x for x in map(self._file, rows)}

    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments; see the base class."""
        if where and not self._facts_are_checked:
            self.files()  # the filter reads them unchecked
            self._facts_are_checked = True
        condition, values = where.to_sql() if where else ('TRUE', [])
        with self.snapshot():
            ((wanted,),) = self._rows(
                'SELECT ifnull(sum(num_moments), 0) FROM videos '
                f'WHERE {condition}',
                values,
            )
            source = 'moments'
            if where:
                source = (
                    f'videos v JOIN moments ON video = v.id WHERE {condition}'
                )
            rows = self._rows(
                f'SELECT moments.id FROM {source} ORDER BY moments.id', values
            )
        self._check_count(wanted, len(rows), 'moments')
        return torch.tensor([row[0] for row in rows], dtype=torch.int64)

    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file; see the base class."""
        rows = self._rows(
            'SELECT num_moments, m.id FROM videos v LEFT JOIN moments m '
            'ON m.video = v.id WHERE path = ? ORDER BY m.start, m.id',
            (encode_path(path),),
        )
        if not rows:
            raise KeyError(f'The index has no file {path}.')
        ids = [row[1] for row in rows if row[1] is not None]
        self._check_count(rows[0][0], len(ids), f'moments of {path}')
        return torch.tensor(ids, dtype=torch.int64)

    def _select(
        self, parts: Sequence[str], ids: Sequence[int]
    ) -> Iterable[Sequence[Any]]:
        *others, table = parts
        columns, joins = [f'{table}.id'], ''
        for part in parts:
            own = {'moments': ' - video'}.get(part, '')
            columns += [f'{part}.{name}' for name in PARTS[part]]
            columns.append(f'{part}.crc - {part}.id{own}')
        for other in others:
            key = 'video' if other == 'videos' else f'{table}.id'
            joins += f' LEFT JOIN {other} ON {other}.id = {key}'
        return self._rows(
            f'SELECT {", ".join(columns)} FROM {table}{joins} '
            f'WHERE {table}.id IN (SELECT value FROM json_each(?))',
            (json.dumps(list(ids)),),
        )

    def replace(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> list[int]:
        """Put files in the place of what was known; see the base class."""
        new: dict[str, list[tuple]] = {part: [] for part in PARTS}
        with self._transaction() as run:
            self._delete(file.path for file, _ in files)
            video = self._one('SELECT ifnull(max(id), 0) FROM videos')
            number = self._one(
                'SELECT ifnull(max(seq), 0) FROM sqlite_sequence'
            )
            for file, rows in files:
                video += 1
                *facts, crc = file.to_row(len(rows))
                new['videos'].append((video, *facts, crc + video))
                for row in rows:
                    number += 1
                    for part, (*values, crc) in row.to_parts().items():
                        link = (video,) if part == 'moments' else ()
                        crc += number + sum(link)
                        new[part].append((number, *values, crc, *link))
            for part, own in new.items():
                if own:
                    marks = ', '.join('?' * len(own[0]))
                    insert = f'INSERT INTO {part} VALUES ({marks})'
                    run.executemany(insert, own)
        return [number for number, *_ in new['moments']]

    def remove(self, paths: Iterable[str]) -> None:
        """Take out files; see the base class."""
        with self._transaction():
            self._delete(paths)

    def _delete(self, paths: Iterable[str]) -> None:
        self._connection.executemany(
            'DELETE FROM videos WHERE path = ?',
            [(encode_path(path),) for path in paths],
        )

    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files tags; see the base class."""
        with self._transaction() as run:
            for path in paths:
                for number, *row in self._rows(
                    f'SELECT id, {_ALL_FACTS} FROM videos WHERE path = ?',
                    (encode_path(path),),
                ):
                    file = replace(self._file(row), tags=tuple(tags))
                    *_, kept, _, crc = file.to_row(row[-2])
                    run.execute(
                        'UPDATE videos SET tags = ?, crc = ? WHERE id = ?',
                        (kept, crc + number, number),
                    )

    def verify(self) -> dict[str, str]:
        """Read everything; see the base class."""
        troubles = [row[0] for row in self._rows('PRAGMA integrity_check')]
        if troubles != ['ok']:
            raise self._damaged('; '.join(map(str, troubles[:3])))
        return super().verify()

    def repair(self) -> dict[str, str]:
        """Take out what is damaged; see the base class."""
        try:
            return super().repair()
        except DamagedIndexError as err:
            self._rescue()
            return {self.where: str(err)}

    def _rescue(self) -> None:
        """Copy what can be read of a file whose pages are damaged."""
        rescued, kept = f'{self.where}.rescued', f'{self.where}.damaged'
        number = 1
        while os.path.exists(f'{kept}-{number}'):
            number += 1
        Path(rescued).unlink(missing_ok=True)
        try:
            fresh = type(self).create(rescued, self.about)
            for row in self._rows(f'SELECT {_ALL_FACTS} FROM videos'):
                with contextlib.suppress(DamagedIndexError, KeyError):
                    file = self._file(row)
                    ids = self.ids_of(file.path).tolist()
                    rows = self._read(MOMENT_PARTS, ids)
                    own = [StoredMoment(*values) for values in rows]
                    fresh.replace([(file, own)])
        except DamagedIndexError as err:
            raise DamagedIndexError(
                f'{self.where} is damaged beyond repair. Make the index '
                f'again. ({err})'
            ) from err
        fresh.close()
        self.close()
        with told(self.where, writing=True):
            for end in (*_ENDINGS, ''):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.where + end, f'{kept}-{number}{end}')
            os.replace(rescued, self.where)
            self._connection = _connect(self.where, self._writable)
        self._set_up()

    @contextlib.contextmanager
    def _transaction(
        self, begin: str = 'BEGIN IMMEDIATE', end: str = 'COMMIT'
    ) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it."""
        run, writing = self._connection, end == 'COMMIT'
        if writing:
            self._require_writable()
        with self._lock, told(self.where, writing=writing):
            if run.in_transaction:
                yield run
                return
            run.execute(begin)
            try:
                yield run
                run.execute(end)
            finally:
                if run.in_transaction:
                    run.execute('ROLLBACK')

    def snapshot(self) -> AbstractContextManager[Any]:
        """Read from one commit; see the base class."""
        return self._transaction('BEGIN', 'ROLLBACK')

    def _rows(self, statement: str, values: Sequence = ()) -> list[tuple]:
        with self._lock, told(self.where):
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str) -> Any:
        return self._rows(statement)[0][0]


def _connect(where: str, writable: bool) -> sqlite3.Connection:
    """Open a file that is there."""
    path = os.path.realpath(where)
    require_access(path, writable)
    address = Path(path).as_uri()
    connection = _open(f'{address}?mode={"rw" if writable else "ro"}')
    try:
        connection.execute('PRAGMA schema_version')
    except sqlite3.OperationalError:
        # readers need files beside it, which a disk that is only read cannot
        # take; nobody writes there, so they can do without, unless a writer
        # has left some
        if os.access(os.path.dirname(path), os.W_OK) or any(
            os.path.exists(path + end) for end in _ENDINGS
        ):
            raise
        connection.close()
        connection = _open(f'{address}?mode=ro&immutable=1')
    return connection


def _open(address: str) -> sqlite3.Connection:
    return sqlite3.connect(
        address,
        uri=True,
        timeout=SECONDS_TO_WAIT,
        isolation_level=None,
        check_same_thread=False,
    )


def _filled(address: str, about: Mapping[str, Any]) -> sqlite3.Connection:
    """Make an empty index."""
    connection = _open(address)
    connection.executescript(
        'PRAGMA page_size=8192; PRAGMA journal_mode=WAL; '
        f'PRAGMA synchronous=FULL; PRAGMA application_id={_APPLICATION}; '
        f'PRAGMA user_version={VERSION}; {_SCHEMA}'
    )
    connection.execute('INSERT INTO about VALUES (?, ?)', _said(about))
    return connection


def _said(about: Mapping[str, Any]) -> tuple[int, str]:
    content = json.dumps(dict(about))
    return checksum(content), content
