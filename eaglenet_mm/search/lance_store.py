"""An index as a Lance dataset, for many machines and object storage."""

from __future__ import annotations

import contextlib
import datetime
import json
import random
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.moment_store import (
    SECONDS_TO_WAIT,
    VERSION,
    MomentStore,
    in_use,
    require_access,
    told,
)
from eaglenet_mm.search.records import (
    PARTS,
    IndexedFile,
    MomentFilter,
    StoredMoment,
    checksum,
    encode_path,
)
from eaglenet_mm.search.shortlisters import Shortlister, highest

if TYPE_CHECKING:
    from eaglenet_mm.search.video_index import VideoIndex

_ABOUT = b'eaglenet_mm'  # key of the metadata of the schema
_IDS_AT_ONCE = 10_000
_SMALL, _MANY_SMALL = 5000, 100  # rows of a fragment; such fragments
_KEPT = datetime.timedelta(minutes=10)  # old versions, for their readers
_EF = 200  # candidates at least
_LEAST_INDEXED, _ROWS_OF_PARTITION, _PARTITIONS = 1000, 250_000, 20
_BOUND = 'vectors', 'features', 'thumbnails'  # to the moment of their row
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
    The number of a moment is its stable row id. To the checksum of a moment
    that of its path is added, and this sum to those of its other parts.

    Lance writes with a commit that holds or not; on a local disk it does not
    wait for the disk, so that a loss of power may take the last ones.
    Credentials of object storage come from the environment.
    """

    def __init__(self, where: str, dataset: Any, writable: bool) -> None:
        super().__init__(where, writable)
        self._dataset = dataset
        with told(where):
            own = (dataset.schema.metadata or {}).get(_ABOUT, b'[null]')
            self._check_version(json.loads(own)[0])
            self._schema = dataset.schema.remove_metadata()

    @classmethod
    def create(cls, where: str, about: Mapping[str, Any]) -> LanceStore:
        """Make an empty store; see the base class."""
        lance = _import_lance()
        table = _table([_row(_counting(0))], _schema(about))
        table = table.replace_schema_metadata(_metadata(about))
        with told(where, writing=True):
            dataset = lance.write_dataset(
                table, where, mode='create', enable_stable_row_ids=True
            )
        return cls(where, dataset, writable=True)

    @classmethod
    def open(cls, where: str, writable: bool = False) -> LanceStore:
        """Open a store; see the base class."""
        lance = _import_lance()
        require_access(where, writable)
        with told(where):
            return cls(where, lance.dataset(where), writable)

    def close(self) -> None:
        """Do nothing: nothing is open; see the base class."""

    def _read_about(self) -> Sequence[Any]:
        with told(self.where):
            return json.loads(self._dataset.schema.metadata[_ABOUT])[1:]

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data; see the base class."""

        def change(dataset: Any) -> None:
            about = {**self.about, name: value}
            dataset.update_schema_metadata(_metadata(about))

        self._change(change)

    def version(self) -> Any:
        """Take up the last commit and say which; see the base class."""
        with told(self.where):
            self._dataset = self._latest()
        return self._dataset.version

    def _latest(self) -> Any:
        """Make another handle, for threads that read with this one."""
        return self._dataset.checkout_version(self._dataset.latest_version)

    def files(self) -> dict[str, IndexedFile]:
        """List the files; see the base class."""
        names = _columns(['videos'])
        table = self._scan(names, "path <> ''").sort_by('path')
        rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        return {x.path: x for x in map(self._file, dict.fromkeys(rows))}

    def ids(self, where: MomentFilter | None = None) -> Tensor:
        """List moments; see the base class."""
        if where:
            table = self._scan([], f'start IS NOT NULL AND {_sql(where)}')
        else:
            table = self._scan(
                ['size', 'start'], "start IS NOT NULL OR path = ''"
            )
            counted = table.filter(table['start'].is_null())['size']
            table = table.drop_null()
            self._check_count(sum(counted.to_pylist()), len(table), 'moments')
        return _int64(table['_rowid']).sort().values

    def ids_of(self, path: str) -> Tensor:
        """List the moments of a file; see the base class."""
        rows = self._scan(
            ['start', 'num_moments'], f'path = {_literal(encode_path(path))}'
        )
        if not len(rows):
            raise KeyError(f'The index has no file {path}.')
        wanted = rows['num_moments'][0].as_py()
        rows = rows.filter(rows['start'].is_valid())
        self._check_count(wanted, len(rows), f'moments of {path}')
        rows = rows.sort_by([('start', 'ascending'), ('_rowid', 'ascending')])
        return _int64(rows['_rowid'])

    def _select(
        self, parts: Sequence[str], ids: Sequence[int]
    ) -> Iterable[Sequence[Any]]:
        import pyarrow.compute as pc

        conditions = ['start IS NOT NULL']
        if len(ids) < max(_IDS_AT_ONCE, self._dataset.count_rows() // 2):
            some = [str(int(x)) for x in ids if 0 <= x < 2**63]
            conditions = [
                f'_rowid IN ({", ".join(some[x : x + _IDS_AT_ONCE])})'
                for x in range(0, len(some), _IDS_AT_ONCE)
            ]
        names = _columns(parts)
        links = ['moments_crc', *['path'] * ('moments' in parts)]
        for condition in conditions:
            table = self._scan(
                list(dict.fromkeys([*names, *links])), condition
            )
            # those of files without moments have none
            table = table.filter(table[names[-1]].is_valid())
            bonds = _bonds(table, parts)
            columns = [table['_rowid'].to_pylist()]
            for name in names:
                column = table[name].combine_chunks()
                if name in bonds:
                    column = pc.subtract(column, bonds[name])
                columns.append(
                    _bytes_of(column)
                    if name == 'vector'
                    else column.to_pylist()
                )
            with told(self.where):
                yield from zip(*columns, strict=True)

    def write(
        self, files: Sequence[tuple[IndexedFile, Sequence[StoredMoment]]]
    ) -> WrittenFiles:
        """Write files for a later :meth:`commit`, of whichever process."""
        rows = [
            _row(file, len(moments), moment)
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

        with told(self.where, writing=True):
            table = _table(rows, self._schema)
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
            counting = self._write([_row(_counting(left + added))])
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

        wanted = pa.array([encode_path(path) for path in paths])
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
        deadline = time.monotonic() + SECONDS_TO_WAIT
        with told(self.where, writing=True):
            while True:
                self._dataset = self._latest()
                try:
                    made = make(self._dataset)
                    self._dataset = made or self._dataset
                    return
                except OSError as err:
                    if not re.search(
                        'commit conflict|Incompatible transaction', str(err)
                    ):
                        raise
                    if time.monotonic() > deadline:
                        raise in_use(self.where) from err
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
        ids = self._scan([], 'start IS NOT NULL', fragments=new)['_rowid']
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

        paths, names = list(paths), _columns(['videos'])
        wanted = ', '.join(_literal(encode_path(path)) for path in paths)

        def write() -> tuple[list[Any], int]:
            table = self._scan(self._schema.names, f'path IN ({wanted})')
            rows = table.to_pylist()
            ids = [row.pop('_rowid') for row in rows]
            for row in rows:
                file = self._file([row[name] for name in names])
                file = replace(file, tags=tuple(tags))
                facts = file.to_row(row['num_moments'])
                row.update(zip(names, facts, strict=True))
            written = self._write(rows)
            # one fragment: there are a million rows in each
            written[0].row_id_meta = RowIdSequence(ids).to_inline_metadata()
            return written, len(rows) - table['start'].null_count

        if paths:
            self._exchange(paths, write)

    def tidy(self) -> None:
        """Join small fragments; delete what no reader needs any more.

        What was written for a commit that never came is deleted when it is a
        week old.
        """

        def change(dataset: Any) -> None:
            dataset.optimize.compact_files(target_rows_per_fragment=_SMALL)
            if self.has_ann:
                dataset.optimize.optimize_indices()
            dataset.cleanup_old_versions(_KEPT)

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

        options = dict(m=20, ef_construction=200, replace=True)
        options['num_partitions'] = max(1, count // _ROWS_OF_PARTITION)
        self._change(
            lambda dataset: dataset.create_index(
                'vector', 'IVF_HNSW_SQ', 'vector', 'dot', **options
            )
        )

    def nearest(
        self, query: np.ndarray, count: int, where: MomentFilter | None
    ) -> Tensor:
        """Find moments near a vector by the index, int64, in no order."""
        nearest = dict(column='vector', q=query, k=count, metric='dot')
        nearest.update(nprobes=_PARTITIONS, ef=max(2 * count, _EF))
        table = self._scan(
            [],
            _sql(where) if where else None,
            nearest=nearest,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return _int64(table['_rowid']).unique()

    def _scan(
        self, names: list[str], condition: str | None, **options: Any
    ) -> Any:
        """Read columns of the rows that fulfil a condition, with their ids."""
        options |= dict(columns=names, filter=condition, with_row_id=True)
        with told(self.where):
            try:
                return self._dataset.scanner(**options).to_table()
            except (OSError, ValueError) as err:
                if 'not found' not in str(err).lower():
                    raise
                # the version that was read is no longer kept
                self._dataset = self._latest()
                return self._dataset.scanner(**options).to_table()


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
    own = [VERSION, checksum(content), content]
    return {_ABOUT.decode(): json.dumps(own)}


def _counting(num_moments: int) -> IndexedFile:
    return IndexedFile('', num_moments, 0)


def _row(
    file: IndexedFile, num_moments: int = 0, moment: StoredMoment | None = None
) -> dict[str, Any]:
    parts = {'videos': file.to_row(num_moments)}
    parts |= moment.to_parts() if moment else {}
    values = [value for own in parts.values() for value in own]
    row = dict(zip(_columns(parts), values, strict=True))
    # what a row has in common, so that parts of two rows are not mixed up
    if moment:
        row['moments_crc'] += checksum(row['path'])
        for part in _BOUND:
            row[f'{part}_crc'] += row['moments_crc']
    return row


def _bonds(table: Any, parts: Sequence[str]) -> dict[str, Any]:
    """What was added to checksums, by the names of their columns."""
    import pyarrow as pa

    bonds = {f'{part}_crc': table['moments_crc'] for part in _BOUND}
    if 'moments' in parts:
        own = [checksum(path or '') for path in table['path'].to_pylist()]
        bonds['moments_crc'] = pa.array(own, pa.int64())
    return bonds


def _columns(parts: Iterable[str]) -> list[str]:
    return [x for part in parts for x in (*PARTS[part], f'{part}_crc')]


def _schema(about: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    kind, (width,) = about['layout']['vector']['vector']
    types = {
        'vector': pa.list_(getattr(pa, kind)(), width),
        **dict.fromkeys(('path', 'error', 'tags'), pa.string()),
        **dict.fromkeys(('duration', 'start', 'end'), pa.float64()),
        **dict.fromkeys(
            ('times', 'features', 'state', 'thumbnail'), pa.large_binary()
        ),
    }
    return pa.schema([(x, types.get(x, pa.int64())) for x in _columns(PARTS)])


def _table(rows: Sequence[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    kind = schema.field('vector').type.value_type.to_pandas_dtype()
    for row in rows:
        if isinstance(row.get('vector'), bytes):
            row['vector'] = np.frombuffer(row['vector'], kind)
    return pa.Table.from_pylist(rows, schema)


def _bytes_of(vectors: Any) -> list[bytes]:
    numbers = vectors.flatten().to_numpy()
    width = vectors.type.list_size
    return [x.tobytes() for x in numbers.reshape(-1, width)]


def _int64(column: Any) -> Tensor:
    return torch.from_numpy(column.to_numpy().astype(np.int64))


def _literal(text: str) -> str:
    """Quote text for a condition; a quote in it is doubled."""
    return "'" + text.replace("'", "''") + "'"


def _sql(where: MomentFilter) -> str:
    """Put the values of a filter into its condition."""
    condition, values = where.to_sql()
    rest = iter(values)

    def literal(found: re.Match[str]) -> str:
        value = next(rest)
        if found[1]:
            return f'regexp_like(path, {_literal(_glob_to_regex(str(value)))})'
        return _literal(value) if isinstance(value, str) else repr(value)

    return re.sub(r'(path GLOB )?\?', literal, condition)


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
