"""The parts of an index in their order, and what counts of them."""

from __future__ import annotations

from collections import defaultdict

from eaglenet_mm.search.index_part import IndexPart
from eaglenet_mm.search.live_rows import LiveRows
from eaglenet_mm.search.records import IndexedFile

#: Parts are joined up to about so many bytes, so that joining needs little
#: memory and a damaged file costs a part of the index only.
PART_BYTES = 256 * 2**20
#: A part is joined with later ones that have half of its bytes at least, so
#: that a byte is written anew a few times only, however many videos come.
_RATIO = 2


class PartList:
    """Parts by number. What a later part says of a file goes before."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, IndexPart]] = []
        self.removed: dict[str, int] = {}
        self.next_sequence = 0
        self.next_row_id = 0
        self._places: dict[str, tuple[int, int]] = {}  # path: part, file
        self._live: LiveRows | None = None

    def append(self, sequence: int, part: IndexPart) -> None:
        """Add a part with a higher number than all others."""
        for place, file in enumerate(part.files):
            if sequence >= self.removed.get(file.path, 0):
                self._places[file.path] = (len(self.parts), place)
        self.parts.append((sequence, part))
        self.next_sequence = max(self.next_sequence, sequence + 1)
        if len(part):
            highest = int(part.tensors['row_ids'].max())
            self.next_row_id = max(self.next_row_id, highest + 1)
        self._live = None

    def remove(self, removed: dict[str, int]) -> None:
        """Forget files; see :class:`IndexManifest`."""
        for path in removed.keys() - self.removed.keys():
            self._places.pop(path, None)
        for path, sequence in removed.items():
            if path in self._places:
                part, _ = self._places[path]
                if self.parts[part][0] < sequence:
                    del self._places[path]
        self.removed = removed
        self._live = None

    @property
    def files(self) -> dict[str, IndexedFile]:
        """dict[str, IndexedFile]: The files that count, by path."""
        return {
            path: self.parts[part][1].files[place]
            for path, (part, place) in self._places.items()
        }

    def __contains__(self, path: str) -> bool:
        return path in self._places

    def place(self, path: str) -> tuple[int, int]:
        """Give the part of a file, and its place there."""
        return self._places[path]

    @property
    def live(self) -> LiveRows:
        """LiveRows: The rows that count."""
        if self._live is None:
            self._live = LiveRows.of(
                [part for _, part in self.parts], self.live_files()
            )
        return self._live

    def live_files(self) -> list[list[int]]:
        """List the places of the files that count, for each part."""
        places: dict[int, list[int]] = defaultdict(list)
        for part, place in self._places.values():
            places[part].append(place)
        return [sorted(places[part]) for part in range(len(self.parts))]

    def to_join(self) -> list[int]:
        """Choose parts to join: the small ones at the end, and wasteful ones.

        Returns:
            list[int]: Their places, ascending; none if joining gains nothing.
        """
        first, joined = len(self.parts), 0
        while first:
            size = self.parts[first - 1][1].num_bytes
            if size + joined > PART_BYTES:
                break
            if joined and size > _RATIO * joined:
                break
            first -= 1
            joined += size
        tail = set(range(first, len(self.parts)))
        wasteful = {
            place
            for place, files in enumerate(self.live_files())
            if self._is_wasteful(place, files)
        }
        if len(tail) < 2:
            tail = set()
        return sorted(tail | wasteful)

    def _is_wasteful(self, place: int, files: list[int]) -> bool:
        """Whether less than half of a part counts."""
        part = self.parts[place][1]
        if not len(part):
            return 2 * len(files) < len(part.files)
        return 2 * len(part.rows_of(files)) < len(part)

    def join(self, places: list[int]) -> IndexPart:
        """Join parts, without what does not count.

        Raises:
            DamagedIndexError: If a row is not what was written.
        """
        live = self.live_files()
        return IndexPart.join(
            [self.parts[place][1] for place in places],
            [live[place] for place in places],
        )

    def without(self, places: list[int]) -> PartList:
        """Copy the list, without some parts."""
        kept = [
            part
            for place, part in enumerate(self.parts)
            if place not in set(places)
        ]
        copy = PartList()
        copy.removed = self._still_needed(kept)
        for sequence, part in kept:
            copy.append(sequence, part)
        copy.next_sequence = max(copy.next_sequence, self.next_sequence)
        copy.next_row_id = max(copy.next_row_id, self.next_row_id)
        return copy

    def _still_needed(
        self, kept: list[tuple[int, IndexPart]]
    ) -> dict[str, int]:
        """Removals of files that some part still holds."""
        return {
            file.path: self.removed[file.path]
            for sequence, part in kept
            for file in part.files
            if sequence < self.removed.get(file.path, 0)
        }
