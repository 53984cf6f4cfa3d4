"""Which rows of which parts count, and where each of them lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eaglenet_mm.search.index_part import IndexPart


@dataclass
class LiveRows:
    """The rows of an index that were neither removed nor replaced.

    Args:
        row_ids (Tensor): Their numbers, ascending, int64, shape ``(N,)``.
        parts (Tensor): The part that holds each, int64, shape ``(N,)``.
        rows (Tensor): Its place in that part, int64, shape ``(N,)``.
    """

    row_ids: Tensor
    parts: Tensor
    rows: Tensor

    @classmethod
    def of(
        cls, parts: Sequence[IndexPart], live: Sequence[Sequence[int]]
    ) -> LiveRows:
        """Collect the rows of the live files of each part."""
        rows = [
            part.rows_of(places)
            for part, places in zip(parts, live, strict=True)
        ]
        empty = [torch.zeros(0, dtype=torch.int64)]
        found = cls(
            torch.cat(
                empty
                + [
                    part.tensors['row_ids'][own]
                    for part, own in zip(parts, rows, strict=True)
                    if len(own)
                ]
            ),
            torch.cat(
                empty
                + [
                    torch.full_like(own, number)
                    for number, own in enumerate(rows)
                ]
            ),
            torch.cat(empty + rows),
        )
        order = found.row_ids.argsort(stable=True)
        return cls(found.row_ids[order], found.parts[order], found.rows[order])

    def _positions(self, row_ids: Tensor) -> Tensor:
        """Find rows by number."""
        last = max(len(self.row_ids) - 1, 0)
        positions = torch.searchsorted(self.row_ids, row_ids).clamp(max=last)
        if not len(self.row_ids):
            found = torch.zeros_like(row_ids, dtype=torch.bool)
        else:
            found = self.row_ids[positions] == row_ids
        if not bool(found.all()):
            raise KeyError(
                f'The index has no rows {row_ids[~found][:5].tolist()}. They '
                'may have been removed since.'
            )
        return positions

    def locate(self, row_ids: Tensor) -> list[tuple[int, int, int]]:
        """Give number, part and place of rows.

        Raises:
            KeyError: If a row does not exist.
        """
        positions = self._positions(row_ids)
        return list(
            zip(
                row_ids.tolist(),
                self.parts[positions].tolist(),
                self.rows[positions].tolist(),
                strict=True,
            )
        )

    def by_part(self, row_ids: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Group rows by the part that holds them.

        Yields:
            tuple[int, Tensor, Tensor]: The part, the places of its rows in
            ``row_ids``, and their places in the part.

        Raises:
            KeyError: If a row does not exist.
        """
        positions = self._positions(row_ids)
        parts, rows = self.parts[positions], self.rows[positions]
        for part in parts.unique().tolist():
            places = (parts == part).nonzero().flatten()
            yield part, places, rows[places]
