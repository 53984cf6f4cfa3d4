"""An index in one SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from eaglenet_mm.utils.durable_file import sync_folder
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock

_APPLICATION = 0x45474C4D  # 'EGLM', to recognise our files
_VERSION = 1
_MEMORY = ':memory:'
_ENDINGS = '-wal', '-shm'  # of what SQLite keeps beside a file
_SECONDS_TO_WAIT = 60  # for another writer
_IDS_AT_ONCE = 500  # below the variables that SQLite takes

# Paths are bytes, since names of files need not be text. The numbers of
# moments are never used again, so that readers can tell what is new. Every
# row has a checksum, and a count of what belongs to it: pages that have lost
# rows, and indexes that do not fit their tables, are no errors to SQLite.
_SCHEMA = """
CREATE TABLE about (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE videos (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    changed INTEGER NOT NULL, duration REAL NOT NULL, error TEXT NOT NULL,
    tags TEXT NOT NULL, num_moments INTEGER NOT NULL, crc INTEGER NOT NULL);
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
_FILE = 'path, size, changed, duration, error, tags, num_moments'
_NUM_VIDEOS, _NUM_MOMENTS = 'num_videos', 'num_moments'  # in about


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
        self._check_kind()

    @classmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> SQLiteStore:
        """Make an empty store; see the base class."""
        if where == _MEMORY:
            connection = _open(_MEMORY)
            _fill(connection, about)
            return cls(where, True, connection)
        part = f'{where}.part'
        # what an index that was deleted has left would be taken for ours
        rests = [f'{x}{end}' for x in (part, where) for end in _ENDINGS]
        with _told(where, writing=True), _only_maker(Path(f'{where}.lock')):
            if os.path.lexists(where):
                raise IndexWriteError(
                    f'{where} exists, so a new index cannot be made there. '
                    'Give another name.'
                )
            for name in (part, *rests):
                Path(name).unlink(missing_ok=True)
            connection = _open(Path(part).absolute().as_uri())
            with contextlib.closing(connection):
                _fill(connection, about)
            os.replace(part, where)  # whole or not at all
            sync_folder(Path(where).absolute().parent)
        return cls.open(where, writable=True)

    @classmethod
    def open(cls, where: str, writable: bool = False) -> SQLiteStore:
        """Open a store; see the base class."""
        _check_is_file(where)
        with _told(where, writing=writable):
            connection = _connect(where, writable)
            try:
                return cls(where, writable, connection)
            except BaseException:
                connection.close()
                raise

    def _check_kind(self) -> None:
        application = self._one('PRAGMA application_id')
        version = self._one('PRAGMA user_version')
        if application != _APPLICATION:
            raise DamagedIndexError(
                f'{self.where} is empty, or an SQLite file of another '
                'program. Give the name of an index.'
            )
        if version != _VERSION:
            raise DamagedIndexError(
                f'{self.where} is an index of version {version}, but this '
                f'release reads version {_VERSION}. Use the release that made '
                'it, or make it again.'
            )
        # what an index from elsewhere brings along cannot act
        self._connection.execute('PRAGMA trusted_schema=OFF')
        self._connection.execute('PRAGMA foreign_keys=ON')
        self._connection.execute('PRAGMA synchronous=FULL')

    def close(self) -> None:
        """Close the file; see the base class."""
        with self._lock:
            self._connection.close()

    @property
    def about(self) -> dict[str, Any]:
        """dict: See the base class."""
        about = {}
        for name, value, crc in self._rows('SELECT * FROM about'):
            self._check(crc, 'what it says of itself', name, value)
            about[name] = json.loads(value)
        if {_NUM_VIDEOS, _NUM_MOMENTS} - set(about):
            raise self._damaged('what it says of itself')
        del about[_NUM_VIDEOS], about[_NUM_MOMENTS]
        return about

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data; see the base class."""
        with self._transaction():
            _say(self._connection, name, value)

    def version(self) -> Any:
        """Say which commit is read; see the base class."""
        return (
            self._one('PRAGMA data_version'),
            self._connection.total_changes,
        )

    def files(self) -> dict[str, IndexedFile]:
        """List the files; see the base class."""
        with self.snapshot():
            wanted = self._count(_NUM_VIDEOS)
            rows = self._rows(
                f'SELECT id, {_FILE}, crc FROM videos ORDER BY path'
            )
        self._check_count(wanted, len(rows), 'files')
        return {x.path: x for x in map(self._file, rows)}

    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments; see the base class."""
        if where and not self._facts_are_checked:
            self.files()  # the filter reads them unchecked
            self._facts_are_checked = True
        with self.snapshot():
            if where:
                condition, values = _condition(where)
                wanted = self._rows(
                    'SELECT ifnull(sum(num_moments), 0) FROM videos v '
                    f'WHERE {condition}',
                    values,
                )[0][0]
                rows = self._rows(
                    'SELECT m.id FROM videos v JOIN moments m '
                    f'ON m.video = v.id WHERE {condition} ORDER BY m.id',
                    values,
                )
            else:
                wanted = self._count(_NUM_MOMENTS)
                rows = self._rows('SELECT id FROM moments ORDER BY id')
        self._check_count(wanted, len(rows), 'moments')
        return torch.tensor([row[0] for row in rows], dtype=torch.int64)

    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file; see the base class."""
        rows = self._rows(
            'SELECT v.num_moments, m.id FROM videos v LEFT JOIN moments m '
            'ON m.video = v.id WHERE v.path = ? ORDER BY m.start, m.id',
            (os.fsencode(path),),
        )
        if not rows:
            raise KeyError(f'The index has no file {path}.')
        ids = [row[1] for row in rows if row[1] is not None]
        self._check_count(rows[0][0], len(ids), f'moments of {path}')
        return torch.tensor(ids, dtype=torch.int64)

    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Describe moments; see the base class."""
        spans = self._take('moments', ids)
        videos = list({video for video, *_ in spans})
        files = {
            row[0]: self._file(row)
            for row in self._of(
                videos, f'SELECT id, {_FILE}, crc FROM videos WHERE id IN'
            )
        }
        return [
            Moment(moment_id, file, start, end)
            for moment_id, (_, start, end, _), file in zip(
                ids, spans, in_order([x[0] for x in spans], files), strict=True
            )
        ]

    def vectors(self, ids: Sequence[int]) -> list[bytes]:
        """Read vectors; see the base class."""
        return [vector for (vector,) in self._take('vectors', ids)]

    def take(self, ids: Sequence[int], thumbnails: bool) -> list[StoredMoment]:
        """Read rows; see the base class."""
        images = self._take('thumbnails', ids) if thumbnails else [(b'',)]
        return [
            StoredMoment(start, end, b'', times, features, state, jpeg)
            for (_, start, end, times), (features, state), (jpeg,) in zip(
                self._take('moments', ids),
                self._take('features', ids),
                images if thumbnails else images * len(ids),
                strict=True,
            )
        ]

    def thumbnail(self, moment_id: int) -> bytes:
        """Read a JPEG; see the base class."""
        return self._take('thumbnails', [moment_id])[0][0]

    def _take(self, table: str, ids: Sequence[int]) -> list[tuple]:
        """Read rows of a table of moments, without number and checksum."""
        found = {}
        for number, *row, crc in self._of(
            ids, f'SELECT * FROM {table} WHERE id IN'
        ):
            self._check(crc, f'moment {number}', number, *row)
            found[number] = tuple(row)
        return in_order(ids, found)

    def replace(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> list[int]:
        """Put files in the place of what was known; see the base class."""
        ids: list[int] = []
        with self._transaction() as run:
            self._delete([file.path for file, _ in files])
            video = self._one('SELECT ifnull(max(id), 0) FROM videos')
            number = self._one(
                'SELECT ifnull(max(seq), 0) FROM sqlite_sequence'
            )
            for file, rows in files:
                video += 1
                run.execute(
                    'INSERT INTO videos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
                    _video_row(video, file, len(rows)),
                )
                for row in rows:
                    number += 1
                    ids.append(number)
                    for table, own in (
                        ('moments', (video, row.start, row.end, row.times)),
                        ('vectors', (row.vector,)),
                        ('features', (row.features, row.state)),
                        ('thumbnails', (row.thumbnail,)),
                    ):
                        marks = ', ?' * len(own)
                        run.execute(
                            f'INSERT INTO {table} VALUES (?{marks}, ?)',
                            (number, *own, checksum(number, *own)),
                        )
            self._grow(len(files), len(ids))
        return ids

    def remove(self, paths: Iterable[str]) -> None:
        """Take out files; see the base class."""
        with self._transaction():
            self._delete(paths)

    def _delete(self, paths: Iterable[str]) -> None:
        for path in map(os.fsencode, paths):
            for number, num_moments in self._rows(
                'SELECT id, num_moments FROM videos WHERE path = ?', (path,)
            ):
                self._rows('DELETE FROM videos WHERE id = ?', (number,))
                self._grow(-1, -num_moments)

    def _grow(self, num_videos: int, num_moments: int) -> None:
        """Keep count of the rows, which counting them would take long for."""
        for name, more in (
            (_NUM_VIDEOS, num_videos),
            (_NUM_MOMENTS, num_moments),
        ):
            if more:
                _say(self._connection, name, self._count(name) + more)

    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files tags; see the base class."""
        with self._transaction() as run:
            for path in paths:
                for row in self._rows(
                    f'SELECT id, {_FILE}, crc FROM videos WHERE path = ?',
                    (os.fsencode(path),),
                ):
                    file = replace(
                        self._file(row), tags=tuple(dict.fromkeys(tags))
                    )
                    *_, kept, _, crc = _video_row(row[0], file, row[-2])
                    run.execute(
                        'UPDATE videos SET tags = ?, crc = ? WHERE id = ?',
                        (kept, crc, row[0]),
                    )

    def verify(self) -> dict[str, str]:
        """Read everything; see the base class."""
        troubles = [row[0] for row in self._rows('PRAGMA integrity_check')]
        if troubles != ['ok']:
            raise self._damaged('; '.join(map(str, troubles[:3])))
        damaged: dict[str, str] = {}
        for path in self.files():
            try:
                self._whole(path)
            except (DamagedIndexError, KeyError) as err:
                damaged[path] = str(err)
        return damaged

    def _whole(self, path: str) -> list[StoredMoment]:
        """Read all rows of a file."""
        ids = self.ids_of(path).tolist()
        rows = self.take(ids, thumbnails=True)
        for row, vector in zip(rows, self.vectors(ids), strict=True):
            row.vector = vector
        return rows

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
            for row in self._rows(f'SELECT id, {_FILE}, crc FROM videos'):
                with contextlib.suppress(DamagedIndexError, KeyError):
                    file = self._file(row)
                    fresh.replace([(file, self._whole(file.path))])
        except DamagedIndexError as err:
            raise DamagedIndexError(
                f'{self.where} is damaged beyond repair. Make the index '
                f'again. ({err})'
            ) from err
        fresh.close()
        self.close()
        with _told(self.where, writing=True):
            for end in _ENDINGS:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.where + end, f'{kept}-{number}{end}')
            os.replace(self.where, f'{kept}-{number}')
            os.replace(rescued, self.where)
            self._connection = _connect(self.where, self._writable)
        self._check_kind()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it."""
        self._require_writable()
        run = self._connection
        with self._lock, _told(self.where, writing=True):
            run.execute('BEGIN IMMEDIATE')
            try:
                yield run
                run.execute('COMMIT')
            except BaseException:
                if run.in_transaction:
                    run.execute('ROLLBACK')
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read from one commit; see the base class."""
        with self._lock, _told(self.where):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute('BEGIN')
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute('ROLLBACK')

    def _rows(self, statement: str, values: Sequence = ()) -> list[tuple]:
        with self._lock, _told(self.where):
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str) -> Any:
        return self._rows(statement)[0][0]

    def _of(self, ids: Sequence[int], statement: str) -> Iterator[tuple]:
        """Select by ids, a bounded number of variables at a time."""
        if any(not 0 < x < 2**63 for x in ids):
            raise KeyError(f'The index has no moment {max(ids, key=abs)}.')
        if len(ids) > _IDS_AT_ONCE and max(ids) - min(ids) < 2 * len(ids):
            statement = statement.replace('id IN', 'id BETWEEN ? AND ?')
            yield from self._rows(statement, (min(ids), max(ids)))
            return
        for first in range(0, len(ids), _IDS_AT_ONCE):
            some = list(ids[first : first + _IDS_AT_ONCE])
            marks = ', '.join('?' * len(some))
            yield from self._rows(f'{statement} ({marks})', some)

    def _file(self, row: Sequence[Any]) -> IndexedFile:
        *values, crc = row
        self._check(crc, f'file {row[0]}', *values)
        _, path, size, changed, duration, error, tags, _ = values
        path, tags = os.fsdecode(path), tuple(json.loads(tags))
        return IndexedFile(path, size, changed, duration, error, tags)

    def _count(self, name: str) -> Any:
        rows = self._rows('SELECT * FROM about WHERE name = ?', (name,))
        for _, value, crc in rows:
            self._check(crc, name, name, value)
            return json.loads(value)
        raise self._damaged(name)

    def _check_count(self, wanted: int, found: int, what: str) -> None:
        """Refuse a tree of pages that has lost rows."""
        if wanted != found:
            raise self._damaged(f'{wanted} {what}, but {found} are found')


def _connect(where: str, writable: bool) -> sqlite3.Connection:
    """Open a file that is there."""
    path = os.path.realpath(where)
    if writable and not os.access(path, os.W_OK):
        raise PermissionError('it may not be written')
    address = Path(path).as_uri()
    connection = _open(f'{address}?mode={"rw" if writable else "ro"}')
    if writable:
        return connection
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


@contextlib.contextmanager
def _only_maker(path: Path) -> Iterator[None]:
    """Keep other makers of an index out; nobody needs the file afterwards."""
    try:
        lock = take_lock(path)
    except FolderInUseError as err:
        raise IndexWriteError(
            f'{err.writer} is making {path.with_suffix("")}. Wait for it.'
        ) from err
    with lock:
        try:
            yield
        finally:
            path.unlink()


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
    for name, value in {_NUM_VIDEOS: 0, _NUM_MOMENTS: 0, **about}.items():
        _say(connection, name, value)


def _say(connection: sqlite3.Connection, name: str, value: Any) -> None:
    """Keep plain data of the index."""
    text = json.dumps(value)
    connection.execute(
        'INSERT OR REPLACE INTO about VALUES (?, ?, ?)',
        (name, text, checksum(name, text)),
    )


def _video_row(number: int, file: IndexedFile, num_moments: int) -> tuple:
    row = (
        number,
        os.fsencode(file.path),
        file.size,
        file.changed,
        float(file.duration),
        file.error.encode('utf-8', 'replace').decode(),
        json.dumps(file.tags),
        num_moments,
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
        add(
            'CAST(v.path AS TEXT) GLOB CAST(? AS TEXT)',
            os.fsencode(where.glob),
        )
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
    except (sqlite3.Error, UnicodeDecodeError) as err:  # in a damaged name
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
