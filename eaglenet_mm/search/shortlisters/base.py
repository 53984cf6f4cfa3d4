"""What every first stage of the search can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some

#: By how much a vector may be longer than 1: what half precision rounds.
_ROUNDING = 1e-2


class Shortlister(ABC):
    """Finds the rows whose vectors have the highest product with a query.

    Nothing in this interface asks that all vectors fit in memory: they come
    in blocks, and only ids and scores go back. Subclasses implement the
    methods with an underscore, whose arguments have been checked.

    Args:
        embed_dim (int): Width ``C`` of the vectors.
    """

    #: Whether a search gives the true highest, ties included.
    exact = True

    def __init__(self, embed_dim: int) -> None:
        if embed_dim < 1:
            raise ValueError(f'embed_dim must be positive, not {embed_dim}.')
        self.embed_dim = embed_dim
        self._synchronised: Tensor | None = None  # until rows change

    def add(self, row_ids: Tensor, vectors: Tensor) -> None:
        """Add rows.

        Args:
            row_ids (Tensor): Numbers from 0, of rows that are not held,
                int64, shape ``(n,)``.
            vectors (Tensor): Their vectors, of unit length at most, shape
                ``(n, C)``, any floating point type.

        Raises:
            ValueError: If an id is negative, named twice or held, or a vector
                has another width, is too long or is not finite. Then nothing
                is added.
        """
        self._check_row_ids(row_ids)
        vectors = self._checked_vectors(vectors, 'Vectors')
        if len(vectors) != len(row_ids):
            raise ValueError(
                f'There are {len(row_ids)} row ids but {len(vectors)} '
                'vectors. Give one vector for each id.'
            )
        lengths = vectors.norm(dim=1)
        if bool((lengths > 1 + _ROUNDING).any()):
            raise ValueError(
                'Vectors must be of unit length at most, but one has length '
                f'{lengths.max().item():.3g}. Normalise them first.'
            )
        if not len(row_ids):
            return
        known = self._holds(row_ids)
        if bool(known.any()):
            raise ValueError(
                f'Rows {name_some(row_ids[known].tolist())} are held already. '
                'Remove them before they are added again.'
            )
        self._synchronised = None
        self._add(row_ids, vectors)

    def remove(self, row_ids: Tensor) -> None:
        """Remove rows.

        Args:
            row_ids (Tensor): Numbers of rows that are held, int64, shape
                ``(n,)``.

        Raises:
            ValueError: If an id is named twice or is not held. Then nothing
                is removed.
        """
        self._check_row_ids(row_ids)
        if not len(row_ids):
            return
        unknown = ~self._holds(row_ids)
        if bool(unknown.any()):
            raise ValueError(
                f'Rows {name_some(row_ids[unknown].tolist())} are not held, '
                'so they cannot be removed.'
            )
        self._synchronised = None
        self._remove(row_ids)

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Find the rows with the highest inner products.

        Args:
            queries (Tensor): Shape ``(Q, C)``, any floating point type.
            count (int): Rows wanted for each query, at least 1.

        Returns:
            tuple[Tensor, Tensor]: Scores, float32, and row ids, int64, both
            of shape ``(Q, n)`` with ``n = min(count, len(self))``, on the
            CPU; higher scores first, of equal ones the lower id. If not
            ``exact``, rows may be missed and the order of equal ones is a
            best effort.

        Raises:
            ValueError: If a query has another width or is not finite, or
                ``count`` is below 1 or above what the first stage can give.
        """
        queries = self._checked_vectors(queries, 'Queries')
        if count < 1:
            raise ValueError(f'count must be at least 1, but is {count}.')
        if not len(queries):
            count = min(count, len(self))
            return queries.new_zeros(0, count), torch.zeros(
                0, count, dtype=torch.int64
            )
        return self._search(queries, count)

    def synchronise(
        self,
        row_ids: Tensor,
        read_vectors: Callable[[Tensor], Tensor],
        block: int = 4096,
    ) -> None:
        """Hold these rows and no others.

        Cheap if called again with the same rows and nothing has changed:
        then rows are only counted.

        Args:
            row_ids (Tensor): All rows to hold, int64, shape ``(N,)``.
            read_vectors (Callable): From ids, shape ``(n,)``, to vectors,
                shape ``(n, C)``; asked for missing rows only.
            block (int): Rows read and added at once. Default: 4096.

        Raises:
            ValueError: As :meth:`add`, or if vectors that a database kept
                turn out to be those of another index.
        """
        last = self._synchronised
        unchanged = last is not None and torch.equal(last, row_ids)
        if unchanged and len(self) == len(row_ids):
            return
        self._check_row_ids(row_ids)
        held = self.row_ids()
        gone = held[~torch.isin(held, row_ids)]
        for part in gone.split(block):
            self.remove(part)
        missing = row_ids[~torch.isin(row_ids, held)]
        self._reserve(len(row_ids))
        for part in missing.split(block):
            if len(part):
                self.add(part, read_vectors(part))
        self._verify(row_ids, read_vectors)
        self._synchronised = row_ids.clone()

    @abstractmethod
    def __len__(self) -> int:
        """Count the rows that are held."""

    @abstractmethod
    def row_ids(self) -> Tensor:
        """Tell which rows are held.

        Returns:
            Tensor: Ids, ascending, int64, shape ``(len(self),)``.
        """

    def close(self) -> None:  # noqa: B027  most hold nothing to give back
        """Give back files and connections; may be called twice."""

    def _reserve(self, num_rows: int) -> None:  # noqa: B027  a hint only
        """Prepare for as many rows."""

    def _verify(  # noqa: B027  only what outlives a process needs it
        self, row_ids: Tensor, read_vectors: Callable[[Tensor], Tensor]
    ) -> None:
        """Refuse if rows that were held before are not those to hold."""

    @abstractmethod
    def _holds(self, row_ids: Tensor) -> Tensor:
        """Tell which of the ids are held; bool, shape ``(n,)``, n >= 1."""

    @abstractmethod
    def _add(self, row_ids: Tensor, vectors: Tensor) -> None:
        """Add new rows; vectors are float32, n >= 1."""

    @abstractmethod
    def _remove(self, row_ids: Tensor) -> None:
        """Remove rows that are held, n >= 1."""

    @abstractmethod
    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Search; queries are float32, Q >= 1 and count >= 1."""

    @staticmethod
    def _check_row_ids(row_ids: Tensor) -> None:
        """Refuse what is no list of different row numbers."""
        if row_ids.dtype != torch.int64 or row_ids.dim() != 1:
            raise ValueError(
                'Row ids must be int64 of shape (n,), not '
                f'{row_ids.dtype} of shape {tuple(row_ids.shape)}.'
            )
        if bool((row_ids < 0).any()):
            raise ValueError(
                'Row ids must not be negative, but '
                f'{name_some(row_ids[row_ids < 0].tolist())} are.'
            )
        values, counts = row_ids.unique(return_counts=True)
        if len(values) < len(row_ids):
            raise ValueError(
                f'Row ids {name_some(values[counts > 1].tolist())} are named '
                'more than once.'
            )

    def _checked_vectors(self, vectors: Tensor, name: str) -> Tensor:
        """Refuse vectors of another width or with NaN; float32, CPU."""
        shape = tuple(vectors.shape)
        if len(shape) != 2 or shape[1] != self.embed_dim:
            raise ValueError(
                f'{name} must have shape (n, {self.embed_dim}), not {shape}.'
            )
        if not vectors.is_floating_point():
            raise ValueError(f'{name} must be floats, not {vectors.dtype}.')
        vectors = vectors.detach().to('cpu', torch.float32).contiguous()
        if not bool(vectors.isfinite().all()):
            raise ValueError(
                f'{name} must be finite, but '
                f'{int((~vectors.isfinite()).any(dim=1).sum())} of '
                f'{len(vectors)} hold NaN or infinity.'
            )
        return vectors
