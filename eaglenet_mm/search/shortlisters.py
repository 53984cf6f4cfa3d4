"""First stages: from one vector a query to the moments worth scoring."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.records import MomentFilter
from eaglenet_mm.utils.type_name import type_name

if TYPE_CHECKING:
    from eaglenet_mm.search.video_index import VideoIndex

#: Moments up to which ``'auto'`` compares with all, in memory: 2 GiB at 512
#: numbers a vector.
MAX_EXACT_ROWS = 2_000_000


class Shortlister(ABC):
    """The first stage of a search; register others in ``SHORTLISTERS``.

    Args:
        index (VideoIndex): What is searched.
    """

    def __init__(self, index: VideoIndex) -> None:
        self.index = index

    @abstractmethod
    def synchronise(self) -> None:
        """Take up what has changed in the index; before every search.

        Raises:
            KeyError: If a moment was replaced meanwhile; once more, then.
        """

    @abstractmethod
    def search(
        self, queries: Tensor, count: int, where: MomentFilter | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Find the moments whose vectors have the highest inner products.

        Args:
            queries (Tensor): Float32 on the CPU, unit length at most, shape
                ``(Q, C)``.
            count (int): Moments wanted, at least 1; fewer come back where
                there are fewer.
            where (MomentFilter, optional): Which files count.

        Returns:
            list[tuple[Tensor, Tensor]]: For each query inner products,
            descending, and ids, int64; of equal ones the lower id first.
        """


@SHORTLISTERS.register_module()
class TorchShortlister(Shortlister):
    """The exact first stage: one matrix in memory, one product a query.

    The matrix is float16. A product with it is off by a bounded error, so
    all rows that may be among the highest are computed again from the
    vectors as they are stored: what comes back is exact, at the price of
    reading half the bytes.

    Example:
        >>> SHORTLISTERS.get('TorchShortlister').__name__
        'TorchShortlister'
    """

    def __init__(self, index: VideoIndex) -> None:
        super().__init__(index)
        self._ids = torch.zeros(0, dtype=torch.int64)  # ascending
        self._matrix = torch.zeros(0, 0, dtype=torch.float16)  # has room
        with contextlib.suppress(KeyError):  # a search will try again
            self.synchronise()

    def synchronise(self) -> None:
        """Read the vectors of new moments, and drop those that are gone."""
        wanted = self.index.ids
        if torch.equal(wanted, self._ids):
            return
        kept = torch.isin(self._ids, wanted, assume_unique=True)
        if not bool(kept.all()):
            self._matrix = self._matrix[: len(self._ids)][kept]
            self._ids = self._ids[kept]
        # ids are never used again, so new ones are the highest
        new = wanted[len(self._ids) :]
        if not len(new):
            return
        vectors = self.index.vectors(new)
        old, end = len(self._ids), len(wanted)
        if end > len(self._matrix):
            rows = max(end, len(self._matrix) * 3 // 2)
            grown = vectors.new_empty(
                rows, vectors.shape[1], dtype=torch.float16
            )
            if old:
                grown[:old] = self._matrix[:old]
            self._matrix = grown
        self._matrix[old:end] = vectors
        self._ids = wanted

    def search(
        self, queries: Tensor, count: int, where: MomentFilter | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Find the true highest; see the base class."""
        if not len(self._ids):
            nothing = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
            return [nothing] * len(queries)
        rows = None
        if where:
            # what was committed meanwhile is not among our rows
            allowed = self.index.select(where)
            rows = torch.isin(self._ids, allowed).nonzero().flatten()
        return [self._search_one(query, count, rows) for query in queries]

    def _search_one(
        self, query: Tensor, count: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        matrix = self._matrix[: len(self._ids)]
        if rows is None:
            near = matrix @ query.half()
        elif 4 * len(rows) < len(matrix):
            near = matrix[rows] @ query.half()
        else:
            near = (matrix @ query.half())[rows]
        count = min(count, len(near))
        if not count:
            return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        least = float(near.topk(count).values[-1]) - 2 * _ERROR
        places = (near >= least).nonzero().flatten()
        if rows is not None:
            places = rows[places]
        ids = self._ids[places]
        return highest(self.index, query, ids, count)


#: Largest error of a product of two vectors of unit length in float16: both
#: are rounded, so is the result, by 2**-11 each; the rest is for underflow.
_ERROR = 1.8e-3
_RESCORED = 4096


def highest(
    index: VideoIndex, query: Tensor, ids: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Compare moments with a query by their stored vectors.

    Args:
        index (VideoIndex): What they are of.
        query (Tensor): Float32, shape ``(C,)``.
        ids (Tensor): Moments, ascending, int64, shape ``(n,)``.
        count (int): Moments wanted.

    Returns:
        tuple[Tensor, Tensor]: As :meth:`Shortlister.search` for a query.
    """
    if not len(ids):
        return torch.zeros(0), ids
    # in float64, row by row: equal ones are equal
    scores = torch.cat(
        [
            (index.vectors(some).double() * query.double()).sum(dim=1)
            for some in ids.split(_RESCORED)
        ]
    ).float()
    order = scores.argsort(descending=True, stable=True)[:count]
    return scores[order], ids[order]


def build_shortlister(
    name_or_config: str | dict[str, Any], index: VideoIndex
) -> Shortlister:
    """Make the first stage of a search.

    ``'torch'`` is exact, in memory; ``'lance'`` the index of the vectors in a
    Lance dataset; ``'milvus:ADDRESS'`` a server or a file; ``'auto'`` is
    lance where the dataset has an index and vectors are many, else torch; a
    dict is the config of a registered type.

    Raises:
        ValueError: If the name is unknown.
        ImportError: If a package is missing; the message names the extra.
    """
    if isinstance(name_or_config, str):
        kind, _, address = name_or_config.partition(':')
        if kind == 'auto':
            large = len(index) > MAX_EXACT_ROWS and index.has_ann
            kind = 'lance' if large else 'torch'
        types = {'torch': 'Torch', 'lance': 'Lance', 'milvus': 'Milvus'}
        if kind not in types or bool(address) != (kind == 'milvus'):
            raise ValueError(
                "The first stage must be 'auto', 'torch', 'lance' or "
                f"'milvus:http://host:19530', not {name_or_config!r}."
            )
        config: dict[str, Any] = dict(type=f'{types[kind]}Shortlister')
        if address:
            config['uri'] = address
    else:
        config = dict(name_or_config)
        type_name(config)  # its error names what is missing
    return SHORTLISTERS.build({**config, 'index': index})
