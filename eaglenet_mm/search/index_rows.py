"""Reading the rows of an index by their numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from .index_part import STATE
from .part_list import PartList
from .precision import unpack
from .records import IndexedFile, IndexEntry


class IndexRows:
    """The reading side of an index."""

    _parts: PartList

    def __len__(self) -> int:
        return len(self._parts.live.row_ids)

    @property
    def files(self) -> dict[str, IndexedFile]:
        """dict[str, IndexedFile]: By path; unreadable ones too."""
        return self._parts.files

    @property
    def row_ids(self) -> Tensor:
        """Tensor: Numbers of the rows, ascending, int64, shape ``(N,)``."""
        return self._parts.live.row_ids

    def entries(self, row_ids: Tensor) -> list[IndexEntry]:
        """Say what rows are.

        Args:
            row_ids (Tensor): Shape ``(n,)``.

        Raises:
            KeyError: If a row does not exist.
        """
        found = []
        for row_id, number, row in self._parts.live.locate(row_ids):
            part = self._parts.parts[number][1]
            start, end = part.tensors['spans'][row].tolist()
            file = part.files[int(part.tensors['file_of_row'][row])]
            found.append(IndexEntry(row_id, file, start, end))
        return found

    def rows_of_file(self, path: str) -> Tensor:
        """List the numbers of the rows of a file, shape ``(n,)``.

        Raises:
            KeyError: If it is not in the index.
        """
        if path not in self._parts:
            raise KeyError(f'{path} is not in the index. Paths are absolute.')
        number, place = self._parts.place(path)
        part = self._parts.parts[number][1]
        if not len(part):
            return torch.zeros(0, dtype=torch.int64)
        return part.tensors['row_ids'][part.rows_of([place])]

    def vectors(self, row_ids: Tensor) -> Tensor:
        """Read vectors of the first stage, float32, shape ``(n, C)``."""
        return self._gather('vectors', row_ids).float()

    def frame_times(self, row_ids: Tensor) -> Tensor:
        """Read times of frames in seconds, NaN if none, ``(n, F)``."""
        return self._gather('frame_times', row_ids)

    def read(self, row_ids: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Read the state and the unit frames of rows.

        Args:
            row_ids (Tensor): Shape ``(n,)``, at least one.

        Returns:
            tuple[dict[str, Tensor], Tensor]: State by name, float32, and
            frames, float32, shape ``(n, F, D)``.

        Raises:
            KeyError: If a row does not exist.
            DamagedIndexError: If a row is not what was written.
        """
        taken: dict[str, Tensor] = {}
        for number, places, rows in self._parts.live.by_part(row_ids):
            for name, piece in self._parts.parts[number][1].read(rows).items():
                _place(taken, name, piece, places, len(row_ids))
        frames = taken.pop('frames').float()
        state = {name[len(STATE) :]: kept for name, kept in taken.items()}
        return unpack(state), frames

    def thumbnail(self, row_id: int) -> bytes:
        """Read the JPEG of a row."""
        wanted = torch.tensor([row_id])
        _, number, row = self._parts.live.locate(wanted)[0]
        return self._parts.parts[number][1].thumbnail(row)

    def _gather(self, name: str, row_ids: Tensor) -> Tensor:
        """Read an eager tensor of rows."""
        taken: dict[str, Tensor] = {}
        for number, places, rows in self._parts.live.by_part(row_ids):
            piece = self._parts.parts[number][1].tensors[name][rows]
            _place(taken, name, piece, places, len(row_ids))
        return taken[name] if taken else torch.zeros(0, 0)


def _place(
    taken: dict[str, Tensor],
    name: str,
    piece: Tensor,
    places: Tensor,
    count: int,
) -> None:
    """Put rows of a part where they belong among all rows asked for."""
    if name not in taken:
        taken[name] = piece.new_empty(count, *piece.shape[1:])
    taken[name][places] = piece
