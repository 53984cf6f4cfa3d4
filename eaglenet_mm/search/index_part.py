"""One part of an index: some files and their rows, as tensors."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError
from eaglenet_mm.search.part_checks import MEND
from eaglenet_mm.search.precision import pack, to_half
from eaglenet_mm.search.records import IndexedFile, Moments
from eaglenet_mm.search.row_packing import Layout, pack_rows, unpack_rows

#: Read when an index is loaded; the others when a row is asked for.
EAGER = (
    'row_ids',
    'file_of_row',
    'spans',
    'vectors',
    'frame_times',
    'checksums',
    'thumbnail_ends',
    'thumbnail_checksums',
)
FRAMES = 'frames'
STATE = 'state.'


@dataclass
class IndexPart:
    """Some files and their rows.

    Args:
        files (list[IndexedFile]): The files, unreadable ones included.
        tensors (dict[str, Tensor]): ``row_ids`` (int64), ``file_of_row``
            (int64, place in ``files``), ``spans`` (float64, ``(n, 2)``),
            ``vectors`` (``(n, C)``), ``frame_times`` (float32, ``(n, F)``),
            ``rows`` (uint8, ``(n, R)``, frames and state, see
            :mod:`~eaglenet_mm.search.row_packing`), ``thumbnails`` (uint8,
            all JPEGs one after the other), ``thumbnail_ends``, and checksums
            of rows and thumbnails. Empty without rows.
        layout (Layout): Of ``rows``: ``frames`` and ``state.*``.
        name (str): What messages call it.
    """

    files: list[IndexedFile]
    tensors: dict[str, Tensor]
    layout: Layout = field(default_factory=list)
    name: str = 'the index in memory'

    def __len__(self) -> int:
        return len(self.tensors['row_ids']) if self.tensors else 0

    @property
    def num_bytes(self) -> int:
        """int: Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @classmethod
    def of_files(
        cls,
        files: Sequence[tuple[IndexedFile, Moments | None]],
        first_row_id: int,
        precision: str,
    ) -> IndexPart:
        """Make a part of files.

        Args:
            files (Sequence[tuple[IndexedFile, Moments | None]]): Each with
                its rows; None if it is unreadable.
            first_row_id (int): Number of the first row.
            precision (str): Of the kept numbers.

        Returns:
            IndexPart: With checksums.
        """
        names = [file for file, _ in files]
        counts = [len(rows) if rows is not None else 0 for _, rows in files]
        if not any(counts):
            return cls(names, {})
        moments = Moments.join(
            [rows for _, rows in files if rows is not None and len(rows)]
        )
        vectors = moments.vectors.cpu().float()
        tensors = {
            'row_ids': first_row_id + torch.arange(len(moments)),
            'file_of_row': torch.arange(len(names)).repeat_interleave(
                torch.tensor(counts)
            ),
            'spans': moments.spans.double().cpu(),
            'vectors': vectors
            if precision == 'float32'
            else to_half(vectors, 'vectors'),
            'frame_times': moments.frame_times.float().cpu(),
            **_join_thumbnails(moments.thumbnails),
        }
        part = cls(names, tensors)
        part.set_rows(moments.frames.cpu(), moments.state, precision)
        return part

    def set_rows(
        self, frames: Tensor, state: dict[str, Tensor], precision: str
    ) -> None:
        """Put in what is read of a row only when it is asked for.

        Args:
            frames (Tensor): Unit frames, shape ``(n, F, D)``.
            state (dict[str, Tensor]): Of the head.
            precision (str): Of the state.
        """
        kept = {
            f'{STATE}{name}': tensor.cpu()
            for name, tensor in pack(state, precision).items()
        }
        rows, self.layout = pack_rows(
            {FRAMES: to_half(frames, FRAMES), **kept}
        )
        self.tensors['rows'] = rows
        self.tensors['checksums'] = _checksums(rows)

    @classmethod
    def join(
        cls, parts: Sequence[IndexPart], live: Sequence[Sequence[int]]
    ) -> IndexPart:
        """Join parts, without what is no longer wanted.

        Args:
            parts (Sequence[IndexPart]): In their order.
            live (Sequence[Sequence[int]]): Places of the wanted files of
                each part, ascending.

        Returns:
            IndexPart: With the row numbers they have.

        Raises:
            DamagedIndexError: If a row is not what was written.
        """
        files: list[IndexedFile] = []
        pieces: list[dict[str, Tensor]] = []
        layouts: list[Layout] = []
        for part, places in zip(parts, live, strict=True):
            rows = part.rows_of(places)
            if len(rows):
                piece = part.take(rows)
                new_place = torch.zeros(len(part.files), dtype=torch.int64)
                new_place[list(places)] = torch.arange(len(places))
                piece['file_of_row'] = new_place[piece['file_of_row']] + len(
                    files
                )
                pieces.append(piece)
                layouts.append(part.layout)
            files += [part.files[place] for place in places]
        if not pieces:
            return cls(files, {})
        if any(layout != layouts[0] for layout in layouts):
            raise DamagedIndexError(
                'Parts of the index keep different states, so they are not '
                'of one model. Make the index again.'
            )
        ends = [piece.pop('thumbnail_ends') for piece in pieces]
        joined = {
            name: torch.cat([piece[name] for piece in pieces])
            for name in pieces[0]
        }
        offset, shifted = 0, []
        for end in ends:
            shifted.append(end + offset)
            offset += int(end[-1])
        joined['thumbnail_ends'] = torch.cat(shifted)
        return cls(files, joined, layouts[0])

    def rows_of(self, places: Sequence[int]) -> Tensor:
        """List the rows of some files, ascending."""
        if not len(self):
            return torch.zeros(0, dtype=torch.int64)
        wanted = torch.zeros(len(self.files), dtype=torch.bool)
        wanted[list(places)] = True
        return wanted[self.tensors['file_of_row']].nonzero().flatten()

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """Copy some rows of every tensor, checked."""
        taken = {'rows': self.read_packed(rows)}
        for name in EAGER:
            if not name.startswith('thumbnail'):
                taken[name] = self.tensors[name][rows]
        images = [self.thumbnail(row) for row in rows.tolist()]
        return {**taken, **_join_thumbnails(images)}

    def read(self, rows: Tensor) -> dict[str, Tensor]:
        """Read frames and state of some rows.

        Args:
            rows (Tensor): Places in this part, shape ``(n,)``.

        Returns:
            dict[str, Tensor]: ``frames`` and ``state.*``, as they are kept.

        Raises:
            DamagedIndexError: If a row is not what was written.
        """
        return unpack_rows(self.read_packed(rows), self.layout)

    def read_packed(self, rows: Tensor) -> Tensor:
        """Read rows as bytes, checked, shape ``(n, R)``."""
        taken = self.tensors['rows'][rows]
        wrong = _checksums(taken) != self.tensors['checksums'][rows]
        if bool(wrong.any()):
            row = int(rows[wrong][0])
            place = int(self.tensors['file_of_row'][row])
            raise DamagedIndexError(
                f'{self.name} is damaged: the features of '
                f'{self.files[place].path} are not what was written. {MEND}'
            )
        return taken

    def thumbnail(self, row: int) -> bytes:
        """Read the JPEG of a row, checked.

        Raises:
            DamagedIndexError: If it is not what was written.
        """
        ends = self.tensors['thumbnail_ends']
        start = int(ends[row - 1]) if row else 0
        image = self.tensors['thumbnails'][start : int(ends[row])]
        content = image.numpy().tobytes()
        if zlib.crc32(content) != int(
            self.tensors['thumbnail_checksums'][row]
        ):
            raise DamagedIndexError(
                f'{self.name} is damaged: a thumbnail is not what was '
                f'written. {MEND}'
            )
        return content


def _join_thumbnails(images: Sequence[bytes]) -> dict[str, Tensor]:
    """Put JPEGs one after the other."""
    content = b''.join(images)
    lengths = torch.tensor([len(image) for image in images])
    return {
        'thumbnails': torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.zeros(0, dtype=torch.uint8),
        'thumbnail_ends': lengths.cumsum(0),
        'thumbnail_checksums': torch.tensor(
            [zlib.crc32(image) for image in images]
        ),
    }


def _checksums(rows: Tensor) -> Tensor:
    """Compute one checksum a row, int64, shape ``(n,)``."""
    return torch.tensor(
        [zlib.crc32(row) for row in rows.numpy()], dtype=torch.int64
    )
