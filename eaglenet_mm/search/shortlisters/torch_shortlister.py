"""The exact first stage: one matrix in memory, one product."""

from __future__ import annotations

import torch
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters.base import Shortlister
from eaglenet_mm.search.shortlisters.highest import select_highest

#: Kinds of numbers that the matrix may have.
_DTYPES = {'float32': torch.float32, 'float16': torch.float16}

#: The matrix is multiplied in whole panels of so many rows. A library treats
#: left-over rows with another kernel, which rounds otherwise: equal vectors
#: would differ in the last bit by their place.
_PANEL = 64


@SHORTLISTERS.register_module()
class TorchShortlister(Shortlister):
    """Compares a query with every vector; gives the true highest.

    The vectors fill one matrix without gaps: a removed row is overwritten by
    the last one, so that neither adding nor removing costs more than the
    rows in question, and a full matrix grows by half.

    Args:
        embed_dim (int): Width ``C`` of the vectors.
        dtype (str): ``'float32'``, or ``'float16'`` for half the memory;
            products are float32 either way. ``exact`` is claimed for float32
            only: rounded vectors may rank otherwise, unless they were float16
            before. Default: 'float32'.
        capacity (int): Rows to make room for, so that filling the matrix
            copies nothing. Default: 0.
        memory_budget (int): Bytes of scores at once, at least those of one
            query with a panel of rows. Default: 64 MiB.

    Example:
        >>> shortlister = TorchShortlister(embed_dim=512)
        >>> shortlister.add(torch.arange(3), F.normalize(torch.randn(3, 512)))
        >>> scores, row_ids = shortlister.search(torch.randn(1, 512), 2)
        >>> row_ids.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        dtype: str = 'float32',
        capacity: int = 0,
        memory_budget: int = 64 * 2**20,
    ) -> None:
        super().__init__(embed_dim)
        if dtype not in _DTYPES:
            raise ValueError(
                f"dtype must be 'float32' or 'float16', not {dtype!r}."
            )
        self.exact = dtype == 'float32'
        self._budget = max(memory_budget // 4, _PANEL)  # in numbers
        self._matrix = torch.zeros(0, embed_dim, dtype=_DTYPES[dtype])
        self._ids = torch.zeros(0, dtype=torch.int64)
        self._places: dict[int, int] = {}  # from id to row of the matrix
        self._reserve(capacity)

    def __len__(self) -> int:
        return len(self._places)

    def row_ids(self) -> Tensor:
        """Tell which rows are held; see the base class."""
        return self._ids[: len(self)].sort().values

    def _holds(self, row_ids: Tensor) -> Tensor:
        return torch.tensor([x in self._places for x in row_ids.tolist()])

    def _reserve(self, num_rows: int) -> None:
        if num_rows <= len(self._ids):
            return
        old, self._matrix = self._matrix, _panels(self._matrix, num_rows)
        self._matrix[: len(self)] = old[: len(self)]
        ids = torch.zeros(len(self._matrix), dtype=torch.int64)
        ids[: len(self)] = self._ids[: len(self)]
        self._ids = ids

    def _add(self, row_ids: Tensor, vectors: Tensor) -> None:
        begin, end = len(self), len(self) + len(row_ids)
        if end > len(self._ids):
            self._reserve(max(end, len(self._ids) * 3 // 2))
        self._matrix[begin:end] = vectors
        self._ids[begin:end] = row_ids
        self._places.update(
            zip(row_ids.tolist(), range(begin, end), strict=True)
        )

    def _remove(self, row_ids: Tensor) -> None:
        removed = [self._places.pop(row) for row in row_ids.tolist()]
        size = len(self)
        # the rows behind the new end move into the gaps before it
        gaps = torch.tensor([x for x in removed if x < size]).long()
        behind = set(removed)
        moved = torch.tensor(
            [x for x in range(size, size + len(removed)) if x not in behind]
        ).long()
        self._matrix[gaps] = self._matrix[moved]
        self._ids[gaps] = self._ids[moved]
        self._places.update(
            zip(self._ids[gaps].tolist(), gaps.tolist(), strict=True)
        )

    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        rows = _whole_panels(len(self))
        step = max(1, self._budget // max(rows, 1))
        found = [self._search_block(x, count) for x in queries.split(step)]
        scores, row_ids = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(row_ids)

    def _search_block(
        self, queries: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Search with so few queries that the scores fit the budget."""
        step = self._budget // len(queries) // _PANEL * _PANEL or _PANEL
        scores = queries.new_zeros(len(queries), 0)
        row_ids = torch.zeros(len(queries), 0, dtype=torch.int64)
        for begin in range(0, len(self), step):
            end = min(begin + step, len(self))
            block = self._products(queries, begin, _whole_panels(end))
            ids = self._ids[begin:end].expand(len(queries), -1)
            scores, row_ids = select_highest(
                torch.cat([scores, block[:, : end - begin]], dim=1),
                torch.cat([row_ids, ids], dim=1),
                count,
            )
        return scores, row_ids

    def _products(self, queries: Tensor, begin: int, end: int) -> Tensor:
        """Multiply with rows of the matrix, ``(Q, end - begin)``."""
        rows = self._matrix[begin:end]
        if rows.dtype == torch.float32:
            return queries @ rows.t()
        # widened a piece at a time: a product in half precision would round
        products = queries.new_empty(len(queries), len(rows))
        wide = torch.empty(min(_WIDENED, len(rows)), self.embed_dim)
        for place in range(0, len(rows), _WIDENED):
            part = rows[place : place + _WIDENED]
            copy = wide[: len(part)].copy_(part)
            products[:, place : place + len(part)] = queries @ copy.t()
        return products


#: Rows of float16 that are widened at once: they stay in the cache.
_WIDENED = 64 * _PANEL


def _whole_panels(rows: int) -> int:
    """Round up to whole panels."""
    return -(-rows // _PANEL) * _PANEL


def _panels(like: Tensor, num_rows: int) -> Tensor:
    """Make a matrix of whole panels; zeros, untouched ones cost nothing."""
    return like.new_zeros(_whole_panels(num_rows), like.shape[1])
