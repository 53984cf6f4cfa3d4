"""The first stage in Milvus, for those who run it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.search.shortlisters import Shortlister, highest

if TYPE_CHECKING:
    from eaglenet_mm.search.video_index import VideoIndex

_MOST_HITS = 16_384  # that Milvus gives for a query, and rows a page
_IDS_AT_ONCE = 4096
_INSERT_ROWS = 2048  # a server takes 64 MiB
_COMPARED = 32  # vectors that must be those of the index
_SECONDS = 30.0


@SHORTLISTERS.register_module()
class MilvusShortlister(Shortlister):
    """Vectors in a collection of Milvus, kept in step with the index by id.

    The collection is named after the model and the address of the index.
    What Milvus finds is compared again, exactly; whether it misses some is
    up to its index. A server with users wants ``user:password`` in the
    environment variable ``MILVUS_TOKEN``.

    Args:
        index (VideoIndex): What is searched.
        uri (str): ``'http://host:19530'``, or the path of a file of Milvus
            Lite, which one process at a time can open, such as ``'a.db'``.

    Raises:
        ConnectionError: If Milvus does not do as asked.
        ImportError: If a package is missing.
        ValueError: If the address is none.

    Example:
        >>> SHORTLISTERS.get('MilvusShortlister').__name__
        'MilvusShortlister'
    """

    def __init__(self, index: VideoIndex, uri: str) -> None:
        super().__init__(index)
        is_server = uri.startswith(('http://', 'https://', 'tcp://', 'unix:'))
        if not is_server and not uri.endswith('.db'):
            raise ValueError(
                'Milvus has an address such as http://host:19530, or a file '
                f'of its own whose name ends with .db, not {uri!r}.'
            )
        # its words on processes that are forked, which work all the same
        os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
        try:
            import pymilvus

            if not is_server:
                import milvus_lite  # noqa: F401
        except ImportError as err:
            raise ImportError(
                'The first stage in Milvus needs pymilvus, and milvus-lite '
                "for a file. Install them with: pip install 'eaglenet_mm"
                "[milvus]'."
            ) from err
        self.uri = uri
        is_uri = '://' in index.where
        place = index.where if is_uri else os.path.abspath(index.where)
        words = f'{index.model.fingerprint} {place}'.encode()
        digest = hashlib.sha256(words).hexdigest()
        self.collection = f'eaglenet_{digest[:24]}'
        self._kind = 'AUTOINDEX' if is_server else 'FLAT'
        with self._told():
            self._client: Any = pymilvus.MilvusClient(
                uri, token=os.environ.get('MILVUS_TOKEN', ''), timeout=_SECONDS
            )
        self._ids: Tensor | None = None
        self.synchronise()

    def synchronise(self) -> None:
        """Transfer new vectors, and delete those of moments that are gone."""
        wanted = self.index.ids
        if self._ids is not None and torch.equal(self._ids, wanted):
            return
        with self._told():
            if self._ids is None:
                self._ids = self._held_ids()
            gone = self._ids[~torch.isin(self._ids, wanted)]
            for ids in gone.split(_IDS_AT_ONCE) if len(gone) else ():
                self._call('delete', ids=ids.tolist())
            new = wanted[~torch.isin(wanted, self._ids)]
            self._transfer(new)
        self._ids = wanted

    def _held_ids(self) -> Tensor:
        """List what the collection has; forget one of another index."""
        if not self._call('has_collection'):
            return torch.zeros(0, dtype=torch.int64)
        self._call('load_collection')
        pages = self._call(
            'query_iterator', batch_size=_MOST_HITS, filter='id >= 0',
            output_fields=['id'], consistency_level='Strong',
        )  # fmt: skip
        held: list[int] = []
        while page := pages.next():
            held += [row['id'] for row in page]
        pages.close()
        ids = torch.tensor(sorted(held), dtype=torch.int64)
        both = ids[torch.isin(ids, self.index.ids)]
        some = both[:: max(1, len(both) // _COMPARED)]
        if len(some):
            rows = self._call(
                'get', ids=some.tolist(), output_fields=['id', 'vector']
            )
            rows.sort(key=lambda row: row['id'])
            vectors = torch.tensor([list(row['vector']) for row in rows])
            own = self.index.vectors(some)
            if vectors.shape == own.shape and torch.allclose(
                vectors, own, atol=1e-3
            ):
                return ids
        self._call('drop_collection')  # it was made for another index
        return torch.zeros(0, dtype=torch.int64)

    def _transfer(self, ids: Tensor) -> None:
        if not len(ids):
            return
        if not self._call('has_collection'):
            self._make_collection()
        for some in ids.split(_INSERT_ROWS):
            vectors = self.index.vectors(some).tolist()
            pairs = zip(some.tolist(), vectors, strict=True)
            rows = [dict(id=number, vector=own) for number, own in pairs]
            # not 'insert': two machines may do this at the same time
            self._call('upsert', data=rows)
        if self._kind == 'FLAT':  # a file looks at rows one by one until then
            self._call('flush')

    def _make_collection(self) -> None:
        from pymilvus import DataType

        (width,) = self.index.layout.vector.columns['vector'][1]
        schema = self._client.create_schema(auto_id=False)
        schema.add_field('id', DataType.INT64, is_primary=True)
        schema.add_field('vector', DataType.FLOAT_VECTOR, dim=width)
        built = self._client.prepare_index_params()
        built.add_index('vector', index_type=self._kind, metric_type='IP')
        self._call(
            'create_collection', schema=schema, index_params=built,
            consistency_level='Strong',
        )  # fmt: skip

    def search(
        self, queries: Tensor, count: int, where: MomentFilter | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Find moments by Milvus; see the base class."""
        condition = ''
        ids = self.index.ids
        if where:
            allowed = torch.isin(ids, self.index.select(where))
            listed = ids[allowed].tolist()
            if 2 * len(listed) > len(ids):
                condition = f'id not in {ids[~allowed].tolist()}'
            else:
                condition = f'id in {listed}'
            ids = ids[allowed]
        if count > _MOST_HITS and len(ids) > _MOST_HITS:
            raise ValueError(
                f'Milvus gives {_MOST_HITS} hits at most, but '
                f'{min(count, len(ids))} were asked for. Ask for a shorter '
                "shortlist, or take --first-stage 'torch'."
            )
        if not len(ids):
            nothing = torch.zeros(0), ids
            return [nothing] * len(queries)
        with self._told():
            found = self._call(
                'search', data=queries.tolist(), anns_field='vector',
                limit=min(count, _MOST_HITS), filter=condition,
                output_fields=['id'], consistency_level='Strong',
                search_params=dict(metric_type='IP'),
            )  # fmt: skip
        answers = []
        for query, hits in zip(queries, found, strict=True):
            near = torch.tensor([hit['id'] for hit in hits])
            # what is under way there may be gone here
            near = near[torch.isin(near, ids)].long().sort().values
            answers.append(highest(self.index, query, near, count))
        return answers

    def _call(self, method: str, **options: Any) -> Any:
        return getattr(self._client, method)(
            collection_name=self.collection, timeout=_SECONDS, **options
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in a sentence what is wrong with Milvus."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, OSError) as err:
            words = getattr(err, 'message', '') or str(err)
            raise ConnectionError(
                f'Milvus at {self.uri} did not do as asked ({words[:300]}). '
                'See whether it runs, and whether the address and '
                'MILVUS_TOKEN are right; a file can be opened by one process '
                'at a time.'
            ) from err
