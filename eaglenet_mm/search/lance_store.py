"""An index as a Lance dataset, for many machines and object storage."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexInUseError,
    IndexWriteError,
    VideoIndexError,
)
from eaglenet_mm.search.moment_store import MomentStore, in_order
from eaglenet_mm.search.records import (
    IndexedFile,
    Moment,
    MomentFilter,
    StoredMoment,
    checksum,
)
from eaglenet_mm.search.shortlisters import Shortlister, highest

if TYPE_CHECKING:
    from eaglenet_mm.search.video_index import VideoIndex

_VERSION = 1
_ABOUT = 'eaglenet_mm'  # key of the metadata of the schema
_SECONDS_TO_WAIT = 60  # for other writers
_IDS_AT_ONCE = 10_000
_SMALL, _MANY_SMALL = 5000, 100  # rows of a fragment; such fragments
_KEPT = datetime.timedelta(minutes=10)  # old versions, for their readers
_FACTS = ['path', 'size', 'changed', 'duration', 'error', 'tags']
_SPAN = ['start', 'end']
_DATA = ['path', *_SPAN, 'times', 'features', 'state']
_CONFLICT = 'commit conflict|Incompatible transaction'
_UNREACHED = 'Generic|object store|region|credential|account'
_EF = 200  # candidates at least
_LEAST_INDEXED, _ROWS_OF_PARTITION, _PARTITIONS = 1000, 250_000, 20
_NOTHING = '[^\\x{0}-\\x{10ffff}]'  # an expression without a match


@dataclass
class WrittenFiles:
    """Files that were written, but not committed."""

    paths: list[str]
    num_moments: int
    fragments: list[Any]


class LanceStore(MomentStore):
    """The store of many machines: a dataset in a folder or at a URI.

    A row is a moment, with the facts of its file, or a file without any. One
    more row, without a path, counts the moments; every commit replaces it,
    so that Lance refuses one of two that were made from the same version.
    The number of a moment is its stable row id.

    Lance writes with a commit that holds or not; on a local disk it does not
    wait for the disk, so that a loss of power may take the last ones.
    Credentials of object storage come from the environment.
    """

    def __init__(self, where: str, dataset: Any, writable: bool) -> None:
        super().__init__(where, writable)
        self._dataset = dataset

    @classmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> LanceStore:
        """Make an empty store; see the base class."""
        lance = _import_lance()
        table = _table([_counting(0)], _vector_type(about))
        table = table.replace_schema_metadata(_metadata(about))
        with _told(where, writing=True):
            dataset = lance.write_dataset(
                table, where, mode='create', enable_stable_row_ids=True
            )
        return cls(where, dataset, writable=True)

    @classmethod
    def open(cls, where: str, writable: bool = False) -> LanceStore:
        """Open a store; see the base class."""
        lance = _import_lance()
        with _told(where):
            store = cls(where, lance.dataset(where), writable)
        store.about  # noqa: B018  checks that it is one
        if writable and os.path.isdir(where) and not os.access(where, os.W_OK):
            raise IndexWriteError(
                f'{where} may not be written. Check the permissions of the '
                'folder.'
            )
        return store

    def close(self) -> None:
        """Do nothing: nothing is open; see the base class."""

    @property
    def about(self) -> dict[str, Any]:
        """dict: See the base class."""
        with _told(self.where):
            text = (self._dataset.schema.metadata or {}).get(_ABOUT.encode())
        if text is None:
            raise DamagedIndexError(
                f'{self.where} is a Lance dataset of another program. Give '
                'the address of an index.'
            )
        try:
            version, crc, content = json.loads(text)
            if crc == checksum(content) and version == _VERSION:
                return json.loads(content)
        except (TypeError, ValueError) as err:
            raise self._damaged(f'what it says of itself: {err}') from err
        if version == _VERSION:
            raise self._damaged('what it says of itself')
        raise DamagedIndexError(
            f'{self.where} is an index of version {version}, but this release '
            f'reads version {_VERSION}. Use the release that made it, or make '
            'it again.'
        )

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data; see the base class."""

        def change(dataset: Any) -> Any:
            own = _metadata({**self.about, name: value})
            dataset.update_schema_metadata(own)
            return dataset

        self._change(change)

    def version(self) -> Any:
        """Take up the last commit and say which; see the base class."""
        with _told(self.where):
            self._dataset = self._latest()
        return self._dataset.version

    def _latest(self) -> Any:
        """Make another handle, for threads that read with this one."""
        return self._dataset.checkout_version(self._dataset.latest_version)

    def files(self) -> dict[str, IndexedFile]:
        """List the files; see the base class."""
        files: dict[str, IndexedFile] = {}
        names = [*_FACTS, *_SPAN, 'facts_crc']
        for row in _rows(self._read(names, "path <> ''")):
            path = _decode(row['path'])
            if path not in files:
                files[path] = self._file(row)
        return dict(sorted(files.items(), key=lambda x: os.fsencode(x[0])))

    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments; see the base class."""
        if where:
            table = self._read(
                [], 'start IS NOT NULL' + filter_condition(where)
            )
        else:
            table = self._read(
                ['size', 'start'], "start IS NOT NULL OR path = ''"
            )
            counted = table.filter(table['start'].is_null())['size']
            table = table.drop_null()
            if counted.to_pylist() != [len(table)]:
                raise self._damaged(
                    f'{counted.to_pylist()} moments, {len(table)} are found'
                )
        return _int64(table['_rowid']).sort().values

    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file; see the base class."""
        rows = self._read(['start'], f'path = {_literal(_encode(path))}')
        if not len(rows):
            raise KeyError(f'The index has no file {path}.')
        rows = rows.filter(rows['start'].is_valid())
        rows = rows.sort_by([('start', 'ascending'), ('_rowid', 'ascending')])
        return _int64(rows['_rowid'])

    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Describe moments; see the base class."""
        rows = self._of(ids, [*_FACTS, *_SPAN, 'facts_crc'])
        return [
            Moment(row['_rowid'], self._file(row), row['start'], row['end'])
            for row in rows
        ]

    def vectors(self, ids: Sequence[int]) -> list[bytes]:
        """Read vectors; see the base class."""
        conditions = ['start IS NOT NULL']
        if len(ids) < max(_IDS_AT_ONCE, self._dataset.count_rows() // 2):
            some = [x for x in ids if 0 <= x < 2**63]
            conditions = [f'_rowid IN ({_listed(x)})' for x in _blocks(some)]
        found = {}
        for condition in conditions:
            table = self._read(['vector', 'vector_crc'], condition)
            for moment_id, vector, crc in zip(
                table['_rowid'].to_pylist(),
                _vector_bytes(table['vector']),
                table['vector_crc'].to_pylist(),
                strict=True,
            ):
                if crc is not None:
                    self._check(crc, f'moment {moment_id}', vector)
                    found[moment_id] = vector
        return in_order(ids, found)

    def take(self, ids: Sequence[int], thumbnails: bool) -> list[StoredMoment]:
        """Read rows; see the base class."""
        names = [*_DATA, 'data_crc']
        if thumbnails:
            names += ['thumbnail', 'thumbnail_crc']
        taken = []
        for row in self._of(ids, names):
            path = _decode(row['path'])
            self._check(row['data_crc'], path, *(row[x] for x in _DATA))
            if thumbnails:
                self._check(row['thumbnail_crc'], path, row['thumbnail'])
            taken.append(
                StoredMoment(
                    row['start'], row['end'], b'', row['times'],
                    row['features'], row['state'], row.get('thumbnail', b''),
                )
            )  # fmt: skip
        return taken

    def thumbnail(self, moment_id: int) -> bytes:
        """Read a JPEG; see the base class."""
        row = self._of([moment_id], ['thumbnail', 'thumbnail_crc'])[0]
        self._check(
            row['thumbnail_crc'], f'moment {moment_id}', row['thumbnail']
        )
        return row['thumbnail']

    def write(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> WrittenFiles:
        """Write files for a later :meth:`commit`, of whichever process."""
        rows = [
            _row(file, moment)
            for file, moments in files
            for moment in moments or [None]  # type: ignore[list-item]
        ]
        return WrittenFiles(
            [file.path for file, _ in files],
            sum(len(moments) for _, moments in files),
            self._write(rows) if rows else [],
        )

    def _write(self, rows: Sequence[dict[str, Any]]) -> list[Any]:
        from lance.fragment import write_fragments

        table = _table(rows, self._dataset.schema.field('vector').type)
        with _told(self.where, writing=True):
            return write_fragments(table, self._dataset)

    def commit(
        self, written: Sequence[WrittenFiles], removed: Sequence[str] = ()
    ) -> None:
        """Put what was written in the place of what was known of the files."""
        fragments = [x for own in written for x in own.fragments]
        self._exchange(
            [path for own in written for path in own.paths] + list(removed),
            lambda: (fragments, sum(own.num_moments for own in written)),
        )

    def _exchange(
        self,
        paths: Sequence[str],
        write: Callable[[], tuple[list[Any], int]],
    ) -> int:
        """Take files out and fragments, with their moments, in, in a commit.

        Returns the number of the first fragment that is new.
        """
        from lance import LanceDataset, LanceOperation

        first = 0

        def change(dataset: Any) -> Any:
            nonlocal first
            first = 1 + max(x.fragment_id for x in dataset.get_fragments())
            fragments, added = write()
            places, left = self._find(['', *paths])
            gone, changed = [], []
            for number in np.unique(places >> 32).tolist():
                own = places[places >> 32 == number] & 0xFFFFFFFF
                rest = dataset.get_fragment(number).delete_rows(own)
                if rest is None:
                    gone.append(number)
                else:
                    changed.append(rest)
            counting = self._write([_counting(left + added)])
            return LanceDataset.commit(
                dataset,
                LanceOperation.Update(
                    removed_fragment_ids=gone,
                    updated_fragments=changed,
                    new_fragments=[*fragments, *counting],
                ),
                read_version=dataset.version,
            )

        self._change(change)
        return first

    def _find(self, paths: Sequence[str]) -> tuple[np.ndarray, int]:
        """Find rows of files, the first of which is '', that counts.

        Returns their addresses, and how many moments other files have.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array([_encode(path) for path in paths])
        places, left = [], 0
        for batch in self._dataset.to_batches(
            columns=['path', 'start', 'size'], with_row_address=True
        ):
            batch = batch.filter(pc.is_in(batch['path'], wanted))
            places.append(batch['_rowaddr'].to_numpy())
            left -= len(batch) - batch['start'].null_count
            counting = batch.filter(pc.equal(batch['path'], ''))
            left += sum(counting['size'].to_pylist())
        return np.concatenate(places), left

    def _change(self, make: Callable[[Any], Any]) -> None:
        """Commit on top of the last version, until nobody was faster."""
        self._require_writable()
        deadline = time.monotonic() + _SECONDS_TO_WAIT
        with _told(self.where, writing=True):
            while True:
                self._dataset = self._latest()
                try:
                    self._dataset = make(self._dataset)
                    return
                except OSError as err:
                    if not re.search(_CONFLICT, str(err)):
                        raise
                    if time.monotonic() > deadline:
                        raise IndexInUseError(
                            f'Others have been writing {self.where} for more '
                            f'than {_SECONDS_TO_WAIT} seconds. Wait for them, '
                            'and try again.'
                        ) from err
                    time.sleep(random.uniform(0, 0.1))

    def replace(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> list[int]:
        """Put files in the place of what was known; see the base class."""
        if not files:
            return []
        own = self.write(files)
        first = self._exchange(
            own.paths, lambda: (own.fragments, own.num_moments)
        )
        fragments = self._dataset.get_fragments()
        new = [x for x in fragments if x.fragment_id >= first]
        ids = self._read([], 'start IS NOT NULL', fragments=new)['_rowid']
        if sum(x.count_rows() < _SMALL for x in fragments) >= _MANY_SMALL:
            with contextlib.suppress(VideoIndexError):  # there is a next time
                self.tidy()
        return sorted(ids.to_pylist())

    def remove(self, paths: Iterable[str]) -> None:
        """Take out files; see the base class."""
        self.commit([], list(paths))

    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files tags; see the base class."""
        from lance.fragment import RowIdSequence

        paths = list(paths)
        wanted = ', '.join(_literal(_encode(path)) for path in paths)

        def write() -> tuple[list[Any], int]:
            table = self._read(
                self._dataset.schema.names, f'path IN ({wanted})'
            )
            rows = _rows(table)
            ids = [row.pop('_rowid') for row in rows]
            for row, vector in zip(
                rows, _vector_bytes(table['vector']), strict=True
            ):
                row['vector'], row['tags'] = vector, list(dict.fromkeys(tags))
                row['facts_crc'] = checksum(*_facts(row))
            written = self._write(rows)
            # one fragment: there are a million rows in each
            written[0].row_id_meta = RowIdSequence(ids).to_inline_metadata()
            return written, sum(row['start'] is not None for row in rows)

        if paths:
            self._exchange(paths, write)

    def verify(self) -> dict[str, str]:
        """Read everything; see the base class."""
        damaged: dict[str, str] = {}
        self.files()
        for some in _blocks(self.ids().tolist(), 256):
            try:
                self._check_rows(some)
            except DamagedIndexError:
                for moment_id in some:
                    try:
                        self._check_rows([moment_id])
                    except DamagedIndexError as err:
                        path = self._of([moment_id], ['path'])[0]['path']
                        damaged[_decode(path)] = str(err)
        return damaged

    def _check_rows(self, ids: Sequence[int]) -> None:
        self.take(ids, thumbnails=True)
        self.vectors(ids)

    def tidy(self) -> None:
        """Join small fragments; delete what no reader needs any more.

        What was written for a commit that never came is deleted when it is a
        week old.
        """

        def change(dataset: Any) -> Any:
            dataset.optimize.compact_files(target_rows_per_fragment=_SMALL)
            if self.has_ann:
                dataset.optimize.optimize_indices()
            dataset.cleanup_old_versions(_KEPT)
            return dataset

        self._change(change)

    @property
    def has_ann(self) -> bool:
        """bool: Whether the vectors have an index."""
        return any(
            'vector' in own.field_names
            for own in self._dataset.describe_indices()
        )

    def build_ann(self) -> None:
        """Make an index of the vectors, in the place of one that is there.

        Rows that are added later are compared one by one until
        :meth:`tidy`.
        """
        count = len(self.ids())
        if count < _LEAST_INDEXED:
            raise VideoIndexError(
                f'An index of vectors needs at least {_LEAST_INDEXED} of '
                f'them, but {self.where} has {count}, which are compared one '
                'by one in milliseconds.'
            )

        def change(dataset: Any) -> Any:
            return dataset.create_index(
                'vector',
                'IVF_HNSW_SQ',
                name='vector',
                metric='dot',
                num_partitions=max(1, count // _ROWS_OF_PARTITION),
                m=20,
                ef_construction=200,
                replace=True,
            )

        self._change(change)

    def nearest(
        self, query: np.ndarray, count: int, where: MomentFilter | None
    ) -> Tensor:
        """Find moments near a vector by the index, int64, in no order."""
        nearest = dict(column='vector', q=query, k=count, metric='dot')
        nearest.update(nprobes=_PARTITIONS, ef=max(2 * count, _EF))
        table = self._read(
            [],
            filter_condition(where).removeprefix(' AND '),
            nearest=nearest,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return _int64(table['_rowid']).unique()

    def _read(
        self, names: Iterable[str], condition: str, **options: Any
    ) -> Any:
        """Read columns of the rows that fulfil a condition, with their ids."""
        options |= dict(columns=list(names), filter=condition or None)
        options['with_row_id'] = True
        with _told(self.where):
            try:
                return self._dataset.scanner(**options).to_table()
            except (OSError, ValueError) as err:
                if 'not found' not in str(err).lower():
                    raise
                # the version that was read is no longer kept
                self._dataset = self._latest()
                return self._dataset.scanner(**options).to_table()

    def _of(
        self, ids: Sequence[int], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Read columns of moments, in the order of their ids."""
        found = {
            row['_rowid']: row
            for some in _blocks([x for x in ids if 0 <= x < 2**63])
            for row in _rows(
                self._read({'start', *names}, f'_rowid IN ({_listed(some)})')
            )
            if row['start'] is not None
        }
        return in_order(ids, found)

    def _file(self, row: Mapping[str, Any]) -> IndexedFile:
        path = _decode(row['path'])
        self._check(row['facts_crc'], path, *_facts(row))
        facts = {name: row[name] for name in _FACTS}
        return IndexedFile(**facts | dict(path=path, tags=tuple(row['tags'])))


@SHORTLISTERS.register_module()
class LanceShortlister(Shortlister):
    """The first stage in a dataset's own index of vectors: not in memory.

    What the index finds is compared again, exactly; it may miss some. Rows
    added since it was built are compared one by one.

    Raises:
        VideoIndexError: If there is no such index.

    Example:
        >>> SHORTLISTERS.get('LanceShortlister').__name__
        'LanceShortlister'
    """

    def __init__(self, index: VideoIndex) -> None:
        super().__init__(index)
        if not index.has_ann:
            raise VideoIndexError(
                f'{index.where} has no index of its vectors. Make one with '
                "tools/index.py --build-ann, or take --first-stage 'torch'."
            )

    def synchronise(self) -> None:
        """Do nothing: the dataset has what is looked up."""

    def search(
        self, queries: Tensor, count: int, where: MomentFilter | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Find moments by the index; see the base class."""
        store = self.index.store
        assert isinstance(store, LanceStore)
        found = []
        for query in queries:
            ids = store.nearest(query.numpy(), 10 + count * 3 // 2, where)
            found.append(highest(self.index, query, ids, count))
        return found


def _import_lance() -> Any:
    # processes that read videos are forked, and do nothing with Lance
    warnings.filterwarnings('ignore', 'lance is not fork-safe')
    try:
        import lance
    except ImportError as err:
        raise ImportError(
            'An index at a URI or in a *.lance folder needs pylance. Install '
            "it with: pip install 'eaglenet_mm[ray]'."
        ) from err
    return lance


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    content = json.dumps(dict(about))
    return {_ABOUT: json.dumps([_VERSION, checksum(content), content])}


def _facts(row: Mapping[str, Any]) -> list[Any]:
    """What the first checksum of a row is of."""
    facts = [row[name] for name in (*_FACTS[:-1], *_SPAN)]
    facts += [len(row['tags']), *row['tags']]
    return [x for x in facts if x is not None]


def _row(file: IndexedFile, moment: StoredMoment | None) -> dict[str, Any]:
    row: dict[str, Any] = {**vars(file), **(vars(moment) if moment else {})}
    row['path'] = _encode(file.path)
    row['duration'] = float(file.duration)
    row['error'] = file.error.encode('utf-8', 'replace').decode()
    row['tags'] = list(file.tags)
    row.update({name: None for name in _SPAN if moment is None})
    row['facts_crc'] = checksum(*_facts(row))
    if moment:
        row['data_crc'] = checksum(*(row[name] for name in _DATA))
        row['vector_crc'] = checksum(moment.vector)
        row['thumbnail_crc'] = checksum(moment.thumbnail)
    return row


def _counting(num_moments: int) -> dict[str, Any]:
    return _row(IndexedFile('', num_moments, 0), None)


def _vector_type(about: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    kind, (width,) = about['layout']['vector']['vector']
    return pa.list_(getattr(pa, kind)(), width)


def _table(rows: Sequence[Mapping[str, Any]], vector: Any) -> Any:
    """Put rows into columns."""
    import pyarrow as pa

    whole, real, text, data = (
        pa.int64(), pa.float64(), pa.string(), pa.large_binary()
    )  # fmt: skip
    types = dict(
        path=text, size=whole, changed=whole, duration=real, error=text,
        tags=pa.list_(text), start=real, end=real, times=data, features=data,
        state=data, thumbnail=data, vector=vector, facts_crc=whole,
        data_crc=whole, vector_crc=whole, thumbnail_crc=whole,
    )  # fmt: skip
    columns = {name: [row.get(name) for row in rows] for name in types}
    kind = vector.value_type.to_pandas_dtype()
    columns['vector'] = [
        x if x is None else np.frombuffer(x, kind) for x in columns['vector']
    ]
    return pa.table(
        {name: pa.array(own, types[name]) for name, own in columns.items()}
    )


def _vector_bytes(column: Any) -> list[bytes | None]:
    """Take the bytes of vectors out of a column; None where it is null."""
    there = iter(
        column.combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, column.type.list_size)
    )
    return [
        next(there).tobytes() if is_there else None
        for is_there in column.is_valid().to_pylist()
    ]


def _rows(table: Any) -> list[dict[str, Any]]:
    """Turn a table into rows, faster than its own method."""
    columns = table.to_pydict()
    return [
        dict(zip(columns, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]


def _int64(column: Any) -> Tensor:
    return torch.from_numpy(column.to_numpy().astype(np.int64))


def _blocks(ids: Sequence[int], size: int = _IDS_AT_ONCE) -> Iterator[Any]:
    for first in range(0, len(ids), size):
        yield ids[first : first + size]


def _listed(ids: Sequence[int]) -> str:
    return ', '.join(str(int(x)) for x in ids)


def _encode(path: str) -> str:
    """Make text of a name of a file that is none, in which NUL is free."""
    return re.sub(
        '[\udc80-\udcff]', lambda x: f'\0{ord(x[0]) - 0xDC00:x}', path
    )


def _decode(path: str) -> str:
    if '\0' not in path:
        return path
    return re.sub('\0(..)', lambda x: chr(0xDC00 + int(x[1], 16)), path)


def _literal(text: str) -> str:
    """Quote text for a condition; a quote in it is doubled."""
    return "'" + text.replace("'", "''") + "'"


def filter_condition(where: MomentFilter | None) -> str:
    """Turn a filter into further conditions on a row.

    Example:
        >>> filter_condition(MomentFilter(tags=("it's",)))
        " AND array_has(tags, 'it''s')"
    """
    conditions = []
    if where and where.glob:
        pattern = _literal(_glob_to_regex(_encode(where.glob)))
        conditions.append(f'regexp_like(path, {pattern})')
    elif where and where.path:
        path = _encode(where.path.rstrip('/'))
        conditions.append(
            f'(path = {_literal(path)} OR '
            f'starts_with(path, {_literal(path + "/")}))'
        )
    if where:
        for sign, seconds in (('>=', where.after), ('<', where.before)):
            if seconds is not None:
                # what int64 can hold
                seconds = max(-9e9, min(seconds, 9e9))
                conditions.append(f'changed {sign} {math.ceil(seconds * 1e9)}')
        if where.min_duration is not None:
            conditions.append(f'duration >= {float(where.min_duration)!r}')
        if where.max_duration is not None:
            conditions.append(f'duration <= {float(where.max_duration)!r}')
        conditions += [f'array_has(tags, {_literal(x)})' for x in where.tags]
    return ''.join(f' AND {condition}' for condition in conditions)


def _glob_to_regex(glob: str) -> str:
    """Translate a pattern as SQLite understands it."""
    regex = ''
    for sign in re.findall(r'\[(?:\^.|[^^])[^\]]*\]|.', glob, re.DOTALL):
        if sign in '*?':
            regex += '.*' if sign == '*' else '.'
        elif len(sign) > 1:
            negation = '^' if sign[1] == '^' else ''
            own = sign[1 + len(negation) : -1]
            own = re.sub(r'^\]|(.)-(.)|.', _characters, own, flags=re.DOTALL)
            regex += f'[{negation}{own}]'
        else:  # a bracket that nothing closes fits nothing
            regex += f'\\x{{{ord(sign):x}}}' if sign != '[' else _NOTHING
    return f'^(?s:{regex})$'


def _characters(found: re.Match[str]) -> str:
    """Write a character or a range, none of whose signs has a meaning."""
    first, last = found[1] or found[0], found[2] or found[0]
    return f'\\x{{{ord(first):x}}}-\\x{{{max(ord(first), ord(last)):x}}}'


@contextlib.contextmanager
def _told(where: str, writing: bool = False) -> Iterator[None]:
    """Turn errors of Lance into ours."""
    try:
        yield
    except VideoIndexError:
        raise
    except BaseException as err:
        # a panic in Rust is no Exception
        if not isinstance(err, OSError | ValueError | RuntimeError) and (
            type(err).__name__ != 'PanicException'
        ):
            raise
        words = str(err).partition(', /home')[0][:300]
        if 'Dataset at path' in words and 'not found' in words:
            raise FileNotFoundError(
                f'An index was expected at {where}, but there is none. Make '
                'it with tools/index.py.'
            ) from err
        if 'already exists' in words:
            raise IndexWriteError(
                f'{where} exists, so a new index cannot be made there. Give '
                'another name.'
            ) from err
        if '://' in where and re.search(_UNREACHED, words):
            kind = IndexWriteError if writing else VideoIndexError
            raise kind(
                f'{where} could not be reached: {words}. Check the address, '
                'the network, and the credentials in the environment '
                '(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, '
                'for a server of your own, AWS_ENDPOINT_URL; likewise '
                'GOOGLE_... or AZURE_...).'
            ) from err
        if writing:
            raise IndexWriteError(
                f'{where} could not be written: {words}. Make room, or check '
                'the permissions of the folder.'
            ) from err
        raise DamagedIndexError(
            f'{where} could not be read as an index: {words}. Check its '
            'permissions, restore it from a copy, or make it again.'
        ) from err
