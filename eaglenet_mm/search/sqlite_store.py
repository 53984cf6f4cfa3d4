"""An index in one SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexInUseError,
    IndexWriteError,
)
from eaglenet_mm.search.moment_store import MomentStore, in_order
from eaglenet_mm.search.records import (
    IndexedFile,
    Moment,
    MomentFilter,
    StoredMoment,
    checksum,
)

_APPLICATION = 0x45474C4D  # 'EGLM', to recognise our files
_VERSION = 1
_MEMORY = ':memory:'
_SECONDS_TO_WAIT = 60  # for another writer
_IDS_AT_ONCE = 500  # below the variables that SQLite takes

# Paths are bytes, since names of files need not be text. The numbers of
# moments are never used again, so that readers can tell what is new.
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE videos (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    changed INTEGER NOT NULL, duration REAL NOT NULL, error TEXT NOT NULL,
    tags TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE moments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
    start REAL NOT NULL, end REAL NOT NULL, times BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE INDEX moments_of_video ON moments (video);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    vector BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE features (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    features BLOB NOT NULL, state BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE thumbnails (
    id INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE,
    jpeg BLOB NOT NULL, crc INTEGER NOT NULL);
"""
_FILE = 'v.id, v.path, v.size, v.changed, v.duration, v.error, v.tags, v.crc'


class SQLiteStore(MomentStore):
    """The store of one machine: one file, which can be copied when closed.

    Several processes may write, one after the other, while others read; a
    commit is on the disk when its method returns (``synchronous=FULL``). It
    may be used by several threads.
    """

    def __init__(
        self,
        where: str,
        writable: bool,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        self.where = where
        self._writable = writable
        self._lock = threading.RLock()
        self._connection = connection or self._connect()

    def _connect(self) -> sqlite3.Connection:
        mode = 'rw' if self._writable else 'ro'
        address = Path(os.path.abspath(self.where)).as_uri()
        connection = _open(f'{address}?mode={mode}')
        if not self._writable:
            try:
                connection.execute('PRAGMA schema_version')
            except sqlite3.OperationalError as err:
                # readers need a file beside it, which a read-only disk
                # cannot take; nobody can write there either
                if os.access(os.path.dirname(address[7:]) or '/', os.W_OK):
                    raise
                del err
                connection.close()
                connection = _open(f'{address}?mode=ro&immutable=1')
        return connection

    @classmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> SQLiteStore:
        """Make an empty store; see the base class."""
        if where == _MEMORY:
            store = cls(where, True, _open(_MEMORY))
            _fill(store._connection, about)
            store._check_kind()
            return store
        if os.path.exists(where):
            raise IndexWriteError(
                f'{where} exists, so a new index cannot be made there. Give '
                'another name.'
            )
        part = f'{where}.part'
        with _told(part, writing=True):
            Path(where).parent.mkdir(parents=True, exist_ok=True)
            for name in (part, f'{part}-wal', f'{part}-shm'):
                Path(name).unlink(missing_ok=True)
            with contextlib.closing(
                _open(Path(part).absolute().as_uri())
            ) as x:
                _fill(x, about)
            # whole or not at all: what stands there is an index
            os.replace(part, where)
        return cls.open(where, writable=True)

    @classmethod
    def open(cls, where: str, writable: bool = False) -> SQLiteStore:
        """Open a store; see the base class."""
        _check_is_file(where)
        with _told(where, writing=writable):
            store = cls(where, writable)
            try:
                store._check_kind()
            except BaseException:
                store.close()
                raise
        return store

    def _check_kind(self) -> None:
        application = self._one('PRAGMA application_id')
        version = self._one('PRAGMA user_version')
        if application != _APPLICATION:
            raise DamagedIndexError(
                f'{self.where} is an SQLite file of another program. Give '
                'the name of an index.'
            )
        if version != _VERSION:
            raise DamagedIndexError(
                f'{self.where} is an index of version {version}, but this '
                f'release reads version {_VERSION}. Use the release that made '
                'it, or make it again.'
            )
        self._connection.execute('PRAGMA foreign_keys=ON')
        if self._writable:
            self._connection.execute('PRAGMA synchronous=FULL')
            # another user may be allowed to read alone
            self._connection.execute('BEGIN IMMEDIATE')
            self._connection.execute('ROLLBACK')

    def close(self) -> None:
        """Close the file; see the base class."""
        with self._lock:
            self._connection.close()

    @property
    def about(self) -> dict[str, Any]:
        """dict: See the base class."""
        found = self._rows(
            "SELECT name, value FROM about WHERE name NOT LIKE 'num!_%' "
            "ESCAPE '!'"
        )
        try:
            return {name: json.loads(value) for name, value in found}
        except (TypeError, ValueError) as err:
            raise self._damaged(f'what it says of itself: {err}') from err

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data; see the base class."""
        with self._transaction():
            self._connection.execute(
                'INSERT OR REPLACE INTO about VALUES (?, ?)',
                (name, json.dumps(value)),
            )

    def version(self) -> Any:
        """Say which commit is read; see the base class."""
        return (
            self._one('PRAGMA data_version'),
            self._connection.total_changes,
        )

    def files(self) -> dict[str, IndexedFile]:
        """List the files; see the base class."""
        rows = self._all(f'SELECT {_FILE} FROM videos v ORDER BY v.path')
        files = [self._file(row) for row in rows]
        return {file.path: file for file in files}

    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments; see the base class."""
        if not where:
            rows = self._all('SELECT id FROM moments m ORDER BY id')
        else:
            condition, values = _condition(where)
            rows = self._rows(
                'SELECT m.id FROM videos v JOIN moments m ON m.video = v.id '
                f'WHERE {condition} ORDER BY m.id',
                values,
            )
        return torch.tensor([row[0] for row in rows], dtype=torch.int64)

    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file; see the base class."""
        rows = self._rows(
            'SELECT m.id FROM videos v JOIN moments m ON m.video = v.id '
            'WHERE v.path = ? ORDER BY m.start, m.id',
            (os.fsencode(path),),
        )
        return torch.tensor([row[0] for row in rows], dtype=torch.int64)

    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Describe moments; see the base class."""
        found = {}
        for row in self._of(
            ids,
            f'SELECT m.id, m.start, m.end, m.times, m.crc, {_FILE} '
            'FROM moments m JOIN videos v ON v.id = m.video WHERE m.id IN',
        ):
            moment_id, start, end, times, crc = row[:5]
            file = self._file(row[5:])
            self._check(crc, file.path, moment_id, row[5], start, end, times)
            found[moment_id] = Moment(moment_id, file, start, end)
        return in_order(ids, found)

    def vectors(self, ids: Sequence[int] | None = None) -> list[bytes]:
        """Read vectors; see the base class."""
        select = 'SELECT id, vector, crc FROM vectors'
        if ids is None:
            rows: Iterable = self._all(f'{select} m ORDER BY id')
        else:
            rows = self._of(ids, f'{select} WHERE id IN')
        found = {}
        for moment_id, vector, crc in rows:
            self._check(crc, f'moment {moment_id}', moment_id, vector)
            found[moment_id] = vector
        if ids is None:
            return list(found.values())
        return in_order(ids, found)

    def take(self, ids: Sequence[int], thumbnails: bool) -> list[StoredMoment]:
        """Read rows; see the base class."""
        found = {}
        for row in self._of(
            ids,
            'SELECT m.id, v.path, m.video, m.start, m.end, m.times, m.crc, '
            'f.features, f.state, f.crc FROM moments m '
            'JOIN videos v ON v.id = m.video '
            'JOIN features f ON f.id = m.id WHERE m.id IN',
        ):
            moment_id, path, video, start, end, times, crc = row[:7]
            name = os.fsdecode(path)
            self._check(crc, name, moment_id, video, start, end, times)
            self._check(row[9], name, moment_id, row[7], row[8])
            found[moment_id] = StoredMoment(
                start, end, b'', times, row[7], row[8], b''
            )
        taken = in_order(ids, found)
        if thumbnails:
            for moment_id, one in zip(ids, taken, strict=True):
                one.thumbnail = self.thumbnail(moment_id)
        return taken

    def thumbnail(self, moment_id: int) -> bytes:
        """Read a JPEG; see the base class."""
        rows = self._of(
            [moment_id], 'SELECT id, jpeg, crc FROM thumbnails WHERE id IN'
        )
        found = {}
        for _, jpeg, crc in rows:
            self._check(crc, f'moment {moment_id}', moment_id, jpeg)
            found[moment_id] = jpeg
        return in_order([moment_id], found)[0]

    def replace(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> list[int]:
        """Put files in the place of what was known; see the base class."""
        ids: list[int] = []
        with self._transaction() as run:
            run.executemany(
                'DELETE FROM videos WHERE path = ?',
                [(os.fsencode(file.path),) for file, _ in files],
            )
            video = self._one('SELECT ifnull(max(id), 0) FROM videos')
            moment_id = self._one(
                'SELECT ifnull(max(seq), 0) FROM sqlite_sequence'
            )
            for file, rows in files:
                video += 1
                run.execute(
                    'INSERT INTO videos VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                    _video_row(video, file),
                )
                for row in rows:
                    moment_id += 1
                    ids.append(moment_id)
                    self._insert(moment_id, video, row)
        return ids

    def _insert(self, number: int, video: int, row: StoredMoment) -> None:
        run = self._connection.execute
        span = row.start, row.end, row.times
        run(
            'INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?)',
            (number, video, *span, checksum(number, video, *span)),
        )
        run(
            'INSERT INTO vectors VALUES (?, ?, ?)',
            (number, row.vector, checksum(number, row.vector)),
        )
        kept = row.features, row.state
        run(
            'INSERT INTO features VALUES (?, ?, ?, ?)',
            (number, *kept, checksum(number, *kept)),
        )
        run(
            'INSERT INTO thumbnails VALUES (?, ?, ?)',
            (number, row.thumbnail, checksum(number, row.thumbnail)),
        )

    def remove(self, paths: Iterable[str]) -> None:
        """Take out files; see the base class."""
        with self._transaction() as run:
            run.executemany(
                'DELETE FROM videos WHERE path = ?',
                [(os.fsencode(path),) for path in paths],
            )

    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files tags; see the base class."""
        with self._transaction() as run:
            for path in paths:
                rows = run.execute(
                    f'SELECT {_FILE} FROM videos v WHERE v.path = ?',
                    (os.fsencode(path),),
                ).fetchall()
                file = self._file(rows[0])
                file = IndexedFile(
                    **{**vars(file), 'tags': tuple(dict.fromkeys(tags))}
                )
                row = _video_row(rows[0][0], file)
                run.execute(
                    'UPDATE videos SET tags = ?, crc = ? WHERE id = ?',
                    (row[6], row[7], row[0]),
                )

    def verify(self) -> dict[str, str]:
        """Read everything; see the base class."""
        troubles = [row[0] for row in self._rows('PRAGMA integrity_check')]
        if troubles != ['ok']:
            raise self._damaged('; '.join(map(str, troubles[:3])))
        damaged: dict[str, str] = {}
        for path in self.files():
            ids = self.ids_of(path).tolist()
            try:
                self.take(ids, thumbnails=True)
                self.vectors(ids)
            except (DamagedIndexError, KeyError) as err:
                damaged[path] = str(err)
        return damaged

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it."""
        if not self._writable:
            raise IndexWriteError(
                f'{self.where} is not open for writing. Load it with '
                'writable=True to change it.'
            )
        run = self._connection
        with self._lock, _told(self.where, writing=True):
            run.execute('BEGIN IMMEDIATE')
            try:
                yield run
                for table in ('videos', 'moments'):
                    run.execute(
                        'INSERT OR REPLACE INTO about SELECT '
                        f"'num_{table}', count(*) FROM {table}"
                    )
                run.execute('COMMIT')
            except BaseException:
                if run.in_transaction:
                    run.execute('ROLLBACK')
                raise

    def _rows(self, statement: str, values: Sequence = ()) -> list[tuple]:
        with self._lock, _told(self.where):
            return self._connection.execute(statement, values).fetchall()

    def _all(self, statement: str) -> list[tuple]:
        """Select the rows of a table, and refuse one that has lost some."""
        name = 'videos' if ' videos v ' in statement else 'moments'
        with self._lock, _told(self.where):
            # together: others may commit between the two
            self._connection.execute('BEGIN')
            try:
                rows = self._rows(statement)
                kept = self._rows(
                    'SELECT value FROM about WHERE name = ?', (f'num_{name}',)
                )
            finally:
                self._connection.execute('COMMIT')
        if kept and int(kept[0][0]) != len(rows):
            raise self._damaged(
                f'{kept[0][0]} {name}, but {len(rows)} are found'
            )
        return rows

    def _one(self, statement: str) -> Any:
        return self._rows(statement)[0][0]

    def _of(self, ids: Sequence[int], statement: str) -> Iterator[tuple]:
        """Select by ids, a bounded number of variables at a time."""
        for first in range(0, len(ids), _IDS_AT_ONCE):
            some = list(ids[first : first + _IDS_AT_ONCE])
            if any(not -(2**63) <= x < 2**63 for x in some):
                raise KeyError(f'The index has no moment {max(some)}.')
            marks = ', '.join('?' * len(some))
            yield from self._rows(f'{statement} ({marks})', some)

    def _file(self, row: Sequence[Any]) -> IndexedFile:
        number, path, size, changed, duration, error, tags, crc = row
        self._check(
            crc,
            os.fsdecode(path),
            number, path, size, changed, duration, error, tags,
        )  # fmt: skip
        return IndexedFile(
            os.fsdecode(path), size, changed, duration, error,
            tuple(json.loads(tags)),
        )  # fmt: skip


def _open(address: str) -> sqlite3.Connection:
    return sqlite3.connect(
        address,
        uri=True,
        timeout=_SECONDS_TO_WAIT,
        isolation_level=None,
        check_same_thread=False,
    )


def _fill(connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    """Make the tables of an empty index."""
    connection.executescript(
        'PRAGMA page_size=8192; PRAGMA journal_mode=WAL; '
        f'PRAGMA synchronous=FULL; PRAGMA application_id={_APPLICATION}; '
        f'PRAGMA user_version={_VERSION}; {_SCHEMA}'
    )
    connection.executemany(
        'INSERT INTO about VALUES (?, ?)',
        [(name, json.dumps(value)) for name, value in about.items()],
    )


def _video_row(number: int, file: IndexedFile) -> tuple:
    row = (
        number,
        os.fsencode(file.path),
        file.size,
        file.changed,
        float(file.duration),
        file.error.encode('utf-8', 'replace').decode(),
        json.dumps(file.tags),
    )
    return *row, checksum(*row)


def _condition(where: MomentFilter) -> tuple[str, list[Any]]:
    """Turn a filter into SQL, whose values are never part of the text."""
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *own: Any) -> None:
        conditions.append(condition)
        values.extend(own)

    if where.glob:
        add('CAST(v.path AS TEXT) GLOB ?', where.glob)
    elif where.path:
        path = os.fsencode(where.path.rstrip('/'))
        below = path + b'/'
        add(
            '(v.path = ? OR substr(v.path, 1, ?) = ?)', path, len(below), below
        )
    if where.after is not None:
        add('v.changed >= ?', where.after * 1e9)
    if where.before is not None:
        add('v.changed < ?', where.before * 1e9)
    if where.min_duration is not None:
        add('v.duration >= ?', where.min_duration)
    if where.max_duration is not None:
        add('v.duration <= ?', where.max_duration)
    for tag in where.tags:
        add('EXISTS (SELECT 1 FROM json_each(v.tags) WHERE value = ?)', tag)
    return ' AND '.join(conditions), values


def _check_is_file(where: str) -> None:
    if os.path.isdir(where):
        if os.path.exists(os.path.join(where, 'index.json')):
            raise DamagedIndexError(
                f'{where} is an index of an earlier release, which kept what '
                'one head had prepared. Make it again with tools/index.py, '
                'under another name.'
            )
        raise DamagedIndexError(
            f'{where} is a folder, but an index is a file. Give its name.'
        )
    if not os.path.exists(where):
        raise FileNotFoundError(
            f'An index was expected at {where}, but there is none. Make it '
            'with tools/index.py.'
        )


@contextlib.contextmanager
def _told(where: str, writing: bool = False) -> Iterator[None]:
    """Turn errors of SQLite into ours."""
    try:
        yield
    except sqlite3.Error as err:
        words = str(err)
        if 'locked' in words:
            raise IndexInUseError(
                f'Another process has been writing {where} for more than '
                f'{_SECONDS_TO_WAIT} seconds. Wait for it, and try again.'
            ) from err
        if isinstance(err, sqlite3.OperationalError) and writing:
            raise IndexWriteError(
                f'{where} could not be written: {words}. Make room, or check '
                'the permissions of the file and its folder.'
            ) from err
        raise DamagedIndexError(
            f'{where} could not be read as an index: {words}. Check its '
            'permissions, restore it from a copy, run tools/index.py with '
            '--repair, or make it again.'
        ) from err
    except OSError as err:
        if isinstance(err, FileNotFoundError | IndexWriteError):
            raise
        raise IndexWriteError(
            f'{where} could not be written: {err}. Make room, or check the '
            'permissions of the folder.'
        ) from err
