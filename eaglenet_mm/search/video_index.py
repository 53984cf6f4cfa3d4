"""An index of videos: what a search needs, prepared once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError, VideoIndexError
from eaglenet_mm.search.model_identity import ModelIdentity
from eaglenet_mm.search.moment_store import MomentStore, store_kind
from eaglenet_mm.search.records import (
    PRECISIONS,
    IndexedFile,
    Moment,
    MomentFilter,
    MomentLayout,
    Moments,
    StoredMoment,
)
from eaglenet_mm.search.segments import SHOTS, check_segment, make_detector

#: Files that are asked for one by one.
_FEW = 100
#: Rows that are read and written together.
_BLOCK = 256


class VideoIndex:
    """Videos, or their segments, as rows that a search reads.

    A row holds the vector of the first stage, what the video encoder made of
    the frames, their times, and a thumbnail; any head on the same encoders
    can rank it. Rows have numbers that never change. What the index says of
    itself is in ``about``. Made by :meth:`create` and :meth:`load`.

    A path is one SQLite file; ``':memory:'`` lives as long as the process; a
    path that ends with ``.lance`` and a URI are Lance datasets. Every change
    is there when its method returns, whatever happens to the process
    afterwards; after an :class:`IndexWriteError` nothing has changed. Others
    may read meanwhile, and see changes with :meth:`refresh`.

    Rows and files that are not there are a ``KeyError``, rows that are not
    what was written a :class:`DamagedIndexError`.

    Example:
        >>> from eaglenet_mm.search.records import Moments
        >>> model = ModelIdentity(encoders='1f', settings='2e', frames='3d')
        >>> rows = Moments(
        ...     torch.tensor([[0.0, 9.5]]).double(), torch.rand(1, 4),
        ...     torch.rand(1, 2), {'frames': torch.rand(1, 2, 4)}, {}, [b''])
        >>> with VideoIndex.create('a.index', model, rows) as index:
        ...     moment_ids = index.add(IndexedFile('/a.mp4', 0, 0), rows)
        >>> index = VideoIndex.load('a.index')
        >>> len(index), list(index.files)
        (1, ['/a.mp4'])
    """

    def __init__(self, store: MomentStore) -> None:
        self.store = store
        self.about = about = store.about
        self.where = where = store.where
        if about.get('is_unfinished'):
            raise DamagedIndexError(
                f'{where} is a copy that was not finished. Delete it, and '
                'save it again.'
            )
        try:
            self.precision: str = about['precision']
            #: Seconds; 0 for whole videos, ``'shots'`` for shots.
            self.segment = check_segment(about['segment'], about['overlap'])
            self.overlap: float = about['overlap']
            self.model = ModelIdentity.from_json(about['model'], where)
            self.layout = MomentLayout.from_json(about['layout'], where)
        except DamagedIndexError:
            raise
        except (KeyError, TypeError, ValueError) as err:
            raise DamagedIndexError(
                f'{where} lacks what an index says of itself ({err!r}). Make '
                'it again.'
            ) from err
        self._version: Any = None
        self._ids = torch.zeros(0, dtype=torch.int64)
        self._files: dict[str, IndexedFile] | None = None
        self.refresh()

    @classmethod
    def create(
        cls,
        where: str | os.PathLike,
        model: ModelIdentity,
        like: Moments,
        *,
        precision: str = 'float32',
        segment: float | str = 0.0,
        overlap: float = 0.0,
    ) -> VideoIndex:
        """Make an empty index, open for writing.

        Args:
            where (str | PathLike): A new file, ``':memory:'`` or URI.
            model (ModelIdentity): What encodes its rows.
            like (Moments): Rows of the shapes it will take.
            precision (str): ``'float32'``, with which scores are those of a
                test, or ``'float16'``. Default: 'float32'.
            segment (float | str): Seconds of a segment, 0 for whole videos,
                or ``'shots'``, found by their content. Default: 0.
            overlap (float): Share of a segment that the next one repeats,
                in [0, 1). Default: 0.

        Raises:
            IndexWriteError: If something is there, or it cannot be written.
            ValueError: If a setting is not allowed.
        """
        if segment == SHOTS:
            make_detector()
        about = dict(
            model=model.to_json(),
            precision=precision,
            segment=check_segment(segment, overlap),
            overlap=float(overlap),
            layout=MomentLayout.of(like, precision).to_json(),
        )
        return cls(store_kind(where).create(os.fspath(where), about))

    @classmethod
    def load(
        cls,
        where: str | os.PathLike,
        *,
        writable: bool = False,
        repair: bool = False,
    ) -> VideoIndex:
        """Open an index, to change it only if it is ``writable``.

        ``repair`` goes on without what is damaged, which is logged. A
        ``FileNotFoundError`` if there is none.
        """
        where = os.fspath(where)
        store = store_kind(where).open(where, writable)
        try:
            for what, reason in store.repair().items() if repair else ():
                print_log(
                    f'Left out of the index: {what}: {reason}',
                    logger='current',
                    level=logging.WARNING,
                )
            return cls(store)
        except BaseException:
            store.close()
            raise

    def save(self, where: str | os.PathLike, *, precision: str = '') -> None:
        """Write a copy, in a store of either kind, at most as exact.

        What an interrupted copy leaves cannot be opened.
        """
        with VideoIndex.create(
            where,
            self.model,
            self._moments(self.ids[:1]),
            precision=precision or self.precision,
            segment=self.segment,
            overlap=self.overlap,
        ) as copy:
            copy.set_about('is_unfinished', True)
            copy.merge(self)
            for name in self.about.keys() - copy.about.keys():
                copy.set_about(name, self.about[name])
            copy.set_about('is_unfinished', False)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> VideoIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def refresh(self) -> bool:
        """Take up what was committed since, and tell whether there was."""
        version = self.store.version()
        if version == self._version:
            return False
        self._ids, self._version, self._files = self.store.ids(), version, None
        self.about = self.store.about
        return True

    def set_about(self, name: str, value: Any) -> None:
        """Keep plain data of the index, see :attr:`about`."""
        self.store.set_about(name, value)
        self._version = None

    @property
    def has_ann(self) -> bool:
        """bool: Whether the store has an index of the vectors."""
        return getattr(self.store, 'has_ann', False)

    def build_ann(self) -> None:
        """Make an index of the vectors, for a first stage that uses it."""
        if not hasattr(self.store, 'build_ann'):
            raise VideoIndexError(
                f'{self.where} is one file, whose vectors are compared in '
                'memory. An index of vectors is for Lance datasets: copy it '
                'to a folder that ends with .lance, or index to one.'
            )
        self.store.build_ann()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def files(self) -> dict[str, IndexedFile]:
        """dict[str, IndexedFile]: By path; unreadable ones too."""
        if self._version is None:
            self.refresh()
        files = self._files  # another thread may set it to None meanwhile
        if files is None:
            files = self._files = self.store.files()
        return files

    @property
    def ids(self) -> Tensor:
        """Tensor: Numbers of the rows, ascending, int64, shape ``(N,)``."""
        if self._version is None:
            self.refresh()
        return self._ids

    def select(self, where: MomentFilter | None) -> Tensor:
        """List the rows of the files that a filter allows, ascending."""
        return self.store.ids(where) if where else self.ids

    def moments(self, ids: Tensor) -> list[Moment]:
        """Describe rows."""
        return self.store.moments(ids.tolist())

    def moment(self, moment_id: int) -> Moment:
        """Describe a row."""
        return self.store.moments([moment_id])[0]

    def thumbnail(self, moment_id: int) -> bytes:
        """Read the JPEG of a row."""
        return self.store.thumbnail(moment_id)

    def vectors(self, ids: Tensor | None = None) -> Tensor:
        """Read vectors of the first stage, of all rows if ``ids`` is None.

        Float32, shape ``(n, C)``.
        """
        rows = self.store.vectors((self.ids if ids is None else ids).tolist())
        return self.layout.vector.unpack(rows)['vector']

    def read(
        self, ids: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Read features, the state of the head, and times of frames.

        By name, shape ``(n, ...)``; the state is empty where none is kept;
        times in seconds, NaN where padded, shape ``(n, F)``.
        """
        rows = self.store.take(ids.tolist(), thumbnails=False)
        return self._unpack(rows)

    def _unpack(
        self, rows: Sequence[StoredMoment]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        return (
            self.layout.features.unpack([row.features for row in rows]),
            self.layout.state.unpack([row.state for row in rows]),
            self.layout.times.unpack([row.times for row in rows])['times'],
        )

    def _moments(self, ids: Tensor) -> Moments:
        """Read rows whole."""
        rows = self.store.take(ids.tolist(), thumbnails=True)
        features, state, times = self._unpack(rows)
        spans = [[row.start, row.end] for row in rows]
        return Moments(
            torch.tensor(spans, dtype=torch.float64),
            self.vectors(ids),
            times,
            features,
            state,
            [row.thumbnail for row in rows],
        )

    def add(self, file: IndexedFile, moments: Moments | None) -> Tensor:
        """Add a file, see :meth:`add_many`."""
        return self.add_many([(file, moments)])

    def add_many(
        self, files: Sequence[tuple[IndexedFile, Moments | None]]
    ) -> Tensor:
        """Add different files, in the place of what was known of them.

        All together or none. Moments are None, and the file has an
        ``error``, if it could not be read. Gives the numbers of the new rows,
        int64, shape ``(n,)``.
        """
        ids = self.store.replace(
            [
                (file, [] if own is None else self.layout.pack(own))
                for file, own in files
            ]
        )
        self._version = None  # read again when it is asked for
        return torch.tensor(ids, dtype=torch.int64)

    def remove(self, paths: Iterable[str]) -> int:
        """Take files out, and tell how many rows are gone."""
        paths, before = self._known(paths), len(self)
        if paths:
            self.store.remove(paths)
            self._version = None
        return before - len(self)

    def set_tags(self, paths: Iterable[str], tags: Sequence[str]) -> None:
        """Give files tags, in the place of those they have."""
        self.store.set_tags(self._known(paths), tags)
        self._version = None

    def _known(self, paths: Iterable[str]) -> list[str]:
        paths = list(paths)
        # listing all files takes longer than asking for a few
        few = self._files is None and len(paths) < _FEW
        has = self._has if few else self.files.__contains__
        unknown = [path for path in paths if not has(path)]
        if unknown:
            raise KeyError(
                f'{len(unknown)} files are not in the index, the first is '
                f'{unknown[0]}. Paths are absolute.'
            )
        return paths

    def _has(self, path: str) -> bool:
        try:
            self.store.ids_of(path)
        except KeyError:
            return False
        except DamagedIndexError:  # what is damaged may be removed, too
            pass
        return True

    def merge(self, other: VideoIndex, *, replace: bool = False) -> None:
        """Take over the files of another index of the same encoders.

        Files that both have are taken with ``replace``, else an error.
        Segments, and what heads have prepared, must not differ. After an
        error while writing some files may be there.
        """
        other.model.require(self.model, 'the other index')
        kept = [
            (
                own.model.vectors,
                own.layout.state.columns and own.model.head,
                own.layout.features.columns.keys(),
            )
            for own in (self, other)
        ]
        cuts = [
            f'{own.segment} s, overlap {own.overlap:g}'
            for own in (self, other)
        ]
        both = sorted(self.files.keys() & other.files.keys())
        wrong = ''
        if kept[0] != kept[1]:
            wrong = (
                'The indexes keep what different heads prepared. Make one of '
                'them again with the head of the other.'
            )
        elif (self.precision, other.precision) == PRECISIONS:
            wrong = (
                'The other index is less exact (float16), and what it has '
                'lost does not come back. Merge into one with float16.'
            )
        elif cuts[0] != cuts[1]:
            wrong = (
                f'The segments of one index are {cuts[0]}, of the other '
                f'{cuts[1]}. Index with the same segments.'
            )
        elif both and not replace:
            wrong = (
                f'{len(both)} files are in both indexes, the first is '
                f'{both[0]}. Remove them from one, or give replace=True.'
            )
        if wrong:
            raise VideoIndexError(wrong)
        waiting: list[tuple[IndexedFile, Moments | None]] = []
        for file in other.files.values():
            ids = other.store.ids_of(file.path)
            waiting.append((file, other._moments(ids) if len(ids) else None))
            if sum(len(own or ()) for _, own in waiting) >= _BLOCK:
                self.add_many(waiting)
                waiting = []
        self.add_many(waiting)
