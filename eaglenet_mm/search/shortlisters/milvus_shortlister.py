"""The first stage in a vector database: for more than one machine."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters.base import Shortlister
from eaglenet_mm.search.shortlisters.highest import fetch_highest
from eaglenet_mm.search.shortlisters.milvus_collection import (
    ID,
    open_collection,
)
from eaglenet_mm.search.shortlisters.milvus_connection import MilvusConnection

#: Most rows that Milvus returns for a query (its quota ``topk``).
MAX_COUNT = 16_384

_FILE = 'shortlist_milvus.db'
_QUERIES = 64  # of one request: a reply must not outgrow its limit
_IDS = 4096  # in one expression
_INSERT_BYTES = 8 * 2**20  # of one request; a server takes 64 MiB
_FLUSHED_AFTER = 16_384  # rows, in an embedded database
_FEW = 512  # rows that are not worth a flush
_COMPARED = 32  # held vectors that are compared with those of the index


@SHORTLISTERS.register_module()
class MilvusShortlister(Shortlister):
    """Leaves the vectors to Milvus, through the ordinary ``pymilvus`` client.

    Vectors stay in the database when the process ends; ``synchronise`` then
    transfers what has changed. By default the database is embedded
    (``milvus-lite``), a folder of files that one process at a time can open;
    with the address of a server any number of processes and machines can.

    Rows live in a collection. Its field of vectors is named after ``model``,
    so that vectors of other weights cannot mix with them. A collection that
    has no name is named after model, width and, on a server, the index; if
    there is neither ``folder`` nor ``collection``, the rows belong to nothing
    lasting and are dropped in :meth:`close`.

    Args:
        embed_dim (int): Width ``C`` of the vectors.
        uri (str): ``http://host:19530``, or the path of an embedded database
            that ends in ``.db``. Default: '', embedded in ``folder``.
        folder (str | None): Of the index. Default: None.
        collection (str): Name of the collection. Default: '', see above.
        model (str): Fingerprint of the model, of letters, digits and
            underscores. Default: ''.
        token (str): ``user:password``, or a key; better given in the
            environment variable ``MILVUS_TOKEN``. Default: ''.
        index_type (str): Of Milvus: ``'FLAT'`` compares with all rows and is
            exact. Default: '', ``'FLAT'`` if embedded, else ``'AUTOINDEX'``.
        search_params (dict | None): Of its index, as ``dict(level=3)`` of
            ``'AUTOINDEX'``. Default: None.
        timeout (float): Seconds to connect, and for each call. Default: 30.

    Raises:
        ConnectionError: If the database cannot be reached or opened.
        ImportError: If a package is missing.
        ValueError: If the collection holds vectors of another model or width.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        uri: str = '',
        folder: str | None = None,
        collection: str = '',
        model: str = '',
        token: str = '',
        index_type: str = '',
        search_params: dict[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(embed_dim)
        if not re.fullmatch(r'\w*', model, re.ASCII):
            raise ValueError(
                'model must be of letters, digits and underscores, not '
                f'{model!r}.'
            )
        self._field = f'vectors_of_{model}' if model else 'vectors'
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lasting = folder is not None or collection != ''
        owner = _hash(os.path.abspath(folder)) if folder else uuid.uuid4().hex
        if not uri:
            if folder is None:
                self._temporary = tempfile.TemporaryDirectory()
                folder = self._temporary.name
            uri = os.path.join(folder, _FILE)
            owner = 'own'  # a folder may be moved, and its database with it
        self.collection = (
            collection or f'eaglenet_{model or "any"}_{embed_dim}_{owner}'
        )
        self._connection = MilvusConnection(uri, token=token, timeout=timeout)
        embedded = self._connection.embedded
        self.index_type = index_type or ('FLAT' if embedded else 'AUTOINDEX')
        self.exact = self.index_type == 'FLAT'
        self._search_params = dict(search_params or {})
        self._unflushed = 0
        try:
            self._exists = bool(self._call('has_collection'))
            if self._exists:
                open_collection(
                    self._connection, self.collection, self._field, embed_dim
                )
        except BaseException:
            self._exists = False
            self.close()
            raise

    def __len__(self) -> int:
        if not self._exists:
            return 0
        self._flush()
        (row,) = self._call(
            'query',
            filter='',
            output_fields=['count(*)'],
            consistency_level='Strong',
        )
        return int(row['count(*)'])

    def row_ids(self) -> Tensor:
        """Tell which rows are held; see the base class."""
        if not self._exists:
            return torch.zeros(0, dtype=torch.int64)
        self._flush()
        wanted = dict(output_fields=[ID], consistency_level='Strong')
        if self._connection.embedded:
            # all at once; its iterator logs a traceback and goes on
            rows = self._call('query', filter=f'{ID} >= 0', **wanted)
        else:
            rows = self._call('query_all', batch_size=MAX_COUNT, **wanted)
        ids = [row[ID] for row in rows]
        return torch.tensor(ids, dtype=torch.int64).sort().values

    def close(self) -> None:
        """Close the connection; drop rows that belong to nothing lasting."""
        if self._connection.closed:
            return
        try:
            if self._exists and not self._lasting:
                self._call('drop_collection')
        finally:
            self._connection.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _verify(
        self, row_ids: Tensor, read_vectors: Callable[[Tensor], Tensor]
    ) -> None:
        """Compare a few: rows of another index would have equal numbers."""
        some = row_ids[:: max(1, len(row_ids) // _COMPARED)][:_COMPARED]
        if not len(some):
            return
        rows = self._call(
            'get',
            ids=some.tolist(),
            output_fields=[ID, self._field],
            consistency_level='Strong',
        )
        held = {row[ID]: row[self._field] for row in rows}
        there = torch.tensor([row in held for row in some.tolist()])
        some = some[there]
        stored = torch.tensor([held[row] for row in some.tolist()])
        if not torch.allclose(
            stored, read_vectors(some).float().cpu(), atol=1e-3
        ):
            raise ValueError(
                f'Collection {self.collection!r} of {self._connection.uri} '
                'holds vectors that are not those of the index: of another '
                'one, or of one that was made anew in its place. Name another '
                'collection, or drop this one.'
            )

    def _holds(self, row_ids: Tensor) -> Tensor:
        held: set[int] = set()
        for part in row_ids.split(_IDS) if self._exists else ():
            rows = self._call(
                'query',
                filter=f'{ID} in {part.tolist()}',
                output_fields=[ID],
                consistency_level='Strong',
            )
            held.update(row[ID] for row in rows)
        return torch.tensor([x in held for x in row_ids.tolist()])

    def _add(self, row_ids: Tensor, vectors: Tensor) -> None:
        if not self._exists:
            self._call(
                'create_collection',
                key=ID,
                field=self._field,
                embed_dim=self.embed_dim,
                index_type=self.index_type,
                consistency_level='Strong',
            )
            self._exists = True
        step = max(1, _INSERT_BYTES // (4 * self.embed_dim))
        for ids, part in zip(
            row_ids.split(step), vectors.split(step), strict=True
        ):
            rows = [
                {ID: row, self._field: vector}
                for row, vector in zip(ids.tolist(), part.numpy(), strict=True)
            ]
            # not 'insert', with which two machines that bring the collection
            # up to date at the same time would both have their rows in it
            self._call('upsert', data=rows)
            self._unflushed += len(rows)
            if self._unflushed >= _FLUSHED_AFTER:
                self._flush()

    def _remove(self, row_ids: Tensor) -> None:
        for part in row_ids.split(_IDS):
            self._call('delete', ids=part.tolist())

    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if count > MAX_COUNT and len(self) > MAX_COUNT:
            raise ValueError(
                f'Milvus returns {MAX_COUNT} rows of a query at most, but '
                f'{min(count, len(self))} were asked for. Ask for a shorter '
                "shortlist, or use 'torch' or 'faiss'."
            )
        count = min(count, MAX_COUNT)
        parts = [
            fetch_highest(partial(self._fetch, part), count, MAX_COUNT)
            for part in queries.split(_QUERIES)
        ]
        width = min(scores.shape[1] for scores, _ in parts)
        scores = torch.cat([x[:, :width] for x, _ in parts])
        return scores, torch.cat([x[:, :width] for _, x in parts])

    def _fetch(self, queries: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Ask for a number of rows; an approximate index may give fewer."""
        if not self._exists:
            nothing = queries.new_zeros(len(queries), 0)
            return nothing, nothing.long()
        self._flush()
        found = self._call(
            'search',
            data=list(queries.numpy()),
            anns_field=self._field,
            limit=number,
            key=ID,
            search_params=dict(metric_type='IP', params=self._search_params),
            consistency_level='Strong',
        )
        width = min(len(hits) for hits in found)
        scores = [[score for score, _ in hits[:width]] for hits in found]
        row_ids = [[row for _, row in hits[:width]] for hits in found]
        return torch.tensor(scores), torch.tensor(row_ids, dtype=torch.int64)

    def _flush(self) -> None:
        """Let an embedded database bring its rows into order.

        Until then it goes through them one by one, 75 us each. A server
        decides on its own when to.
        """
        if self._connection.embedded and self._unflushed >= _FEW:
            self._call('flush')
            self._unflushed = 0

    def _call(self, method: str, **options: Any) -> Any:
        """Call a method of the client on the collection."""
        return self._connection.call(
            method, collection_name=self.collection, **options
        )


def _hash(text: str) -> str:
    """Shorten a text to what a name may hold."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
