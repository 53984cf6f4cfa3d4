"""An index on the disk: parts, their table of contents, and one writer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from eaglenet_mm.search.errors import (
    DamagedIndexError,
    IndexInUseError,
    IndexWriteError,
)
from eaglenet_mm.search.index_manifest import NAME, IndexManifest
from eaglenet_mm.search.index_part import IndexPart
from eaglenet_mm.search.part_checks import MEND
from eaglenet_mm.search.part_file import read_part, write_part
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock

_PART = re.compile(r'part-(\d{12})\.safetensors')
_UNFINISHED = re.compile(r'\.(part-\d{12}\.safetensors|index\.json)\.part')
_LOCK = 'writer.lock'
_ATTEMPTS = 100


class IndexFolder:
    """A folder with an index.

    Every finished video is a part of its own at once, so that a process may
    die at any moment; parts are joined into larger ones from time to time.
    Readers take no lock: a part that is joined away while they read makes
    them begin again.

    Args:
        path (Path): The folder.
        manifest (IndexManifest): Its table of contents.
        lock (ExitStack, optional): The lock of the writer; None for a reader.
    """

    def __init__(
        self,
        path: Path,
        manifest: IndexManifest,
        lock: ExitStack | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock

    @classmethod
    def create(cls, path: Path, manifest: IndexManifest) -> IndexFolder:
        """Make an empty index, and become its writer.

        Raises:
            IndexWriteError: If the folder cannot be made or holds an index.
            IndexInUseError: If another process is making one there.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise IndexWriteError(
                f'The folder {path} cannot be made: {err}. Give another one.'
            ) from err
        lock = _take_lock(path)
        if (path / NAME).exists():
            lock.close()
            raise IndexWriteError(
                f'{path} holds an index already. Add to it, or give another '
                'folder.'
            )
        strange = sorted(
            child.name
            for child in path.iterdir()
            if child.name != _LOCK and not child.name.startswith('.')
        )
        if strange:
            lock.close()
            raise IndexWriteError(
                f'{path} is to become an index, but holds {strange[:3]}. '
                'Give an empty or new folder.'
            )
        try:
            manifest.write(path)
        except BaseException:
            lock.close()
            raise
        return cls(path, manifest, lock)

    @classmethod
    def open(cls, path: Path, writable: bool) -> IndexFolder:
        """Open an index.

        Args:
            path (Path): The folder.
            writable (bool): Whether to become its writer.

        Raises:
            FileNotFoundError: If there is none.
            DamagedIndexError: If its table of contents is damaged.
            IndexInUseError: If it has a writer already.
        """
        if not path.is_dir():
            raise FileNotFoundError(
                f'An index was expected at {path}, but there is no such '
                'folder. Make one with tools/index.py, or correct the path.'
            )
        if not writable:
            return cls(path, IndexManifest.read(path))
        if not (path / NAME).is_file():
            IndexManifest.read(path)  # raises, and leaves no lock file
        lock = _take_lock(path)
        try:
            folder = cls(path, IndexManifest.read(path), lock)
            folder._remove_leftovers()
        except BaseException:
            lock.close()
            raise
        return folder

    @property
    def is_writable(self) -> bool:
        """bool: Whether this process is the writer."""
        return self._lock is not None

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_parts(self) -> list[tuple[int, IndexPart]]:
        """Read all parts, each with its number.

        Returns:
            list[tuple[int, IndexPart]]: In their order.

        Raises:
            DamagedIndexError: If a part is damaged or missing.
        """
        for attempt in range(_ATTEMPTS):
            names = [
                *self.manifest.parts,
                *_names(self.path, self.manifest.next_sequence),
            ]
            try:
                return [
                    (_sequence(name), read_part(self.path / name))
                    for name in names
                ]
            except FileNotFoundError as err:
                before = self.manifest
                self.manifest = IndexManifest.read(self.path)
                # a writer that joins parts changes the table of contents
                if before == self.manifest or attempt == _ATTEMPTS - 1:
                    raise DamagedIndexError(
                        f'{err} {self.path / NAME} names it, so the index is '
                        f'damaged. {MEND}'
                    ) from err
        raise AssertionError('unreachable')

    def read_whole_parts(
        self,
    ) -> tuple[list[tuple[int, IndexPart]], list[str]]:
        """Read the parts that are as they were written, for the writer.

        Others are put aside, under names that no reader looks for.

        Returns:
            tuple[list[tuple[int, IndexPart]], list[str]]: The parts, and
            what is wrong with the others.
        """
        parts, troubles = [], []
        for name in [
            *self.manifest.parts,
            *_names(self.path, self.manifest.next_sequence),
        ]:
            path = self.path / name
            try:
                parts.append((_sequence(name), read_part(path)))
            except (FileNotFoundError, DamagedIndexError) as err:
                troubles.append(str(err))
                if path.exists():
                    os.replace(path, self.path / f'damaged-{name}')
        return parts, troubles

    def append(self, part: IndexPart, sequence: int) -> IndexPart:
        """Write a part that belongs to the index from now on.

        Args:
            part (IndexPart): The part.
            sequence (int): Its number, higher than all others.

        Returns:
            IndexPart: The same, left on the disk.

        Raises:
            IndexWriteError: If it cannot be written; nothing has changed.
        """
        path = self.path / _name(sequence)
        write_part(part, path)
        return read_part(path)

    def replace(self, sequences: Sequence[int], next_sequence: int) -> None:
        """Say which parts the index has from now on, and delete the others.

        Args:
            sequences (Sequence[int]): Numbers of the parts, in their order.
            next_sequence (int): Higher than all numbers used so far.
        """
        self.manifest.parts = [_name(sequence) for sequence in sequences]
        self.manifest.next_sequence = next_sequence
        self.manifest.write(self.path)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Delete parts that were joined, and files that were not finished."""
        wanted = {
            *self.manifest.parts,
            *_names(self.path, self.manifest.next_sequence),
        }
        for path in self.path.iterdir():
            is_old = _PART.fullmatch(path.name) and path.name not in wanted
            if is_old or _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _name(sequence: int) -> str:
    return f'part-{sequence:012d}.safetensors'


def _sequence(name: str) -> int:
    found = _PART.fullmatch(name)
    if found is None:
        raise DamagedIndexError(
            f"{NAME} names a part '{name[:80]}', which no index has. Restore "
            'it from a copy, or make the index again.'
        )
    return int(found[1])


def _names(path: Path, first: int) -> list[str]:
    """Name the parts on the disk with at least some number."""
    return sorted(
        child.name
        for child in path.iterdir()
        if _PART.fullmatch(child.name) and _sequence(child.name) >= first
    )


def _take_lock(path: Path) -> ExitStack:
    """Become the writer of an index."""
    try:
        return take_lock(path / _LOCK)
    except FolderInUseError as err:
        raise IndexInUseError(
            f'{err.writer} is writing the index {path}. Wait for it, or stop '
            'it; searching goes on meanwhile.'
        ) from err
    except OSError as err:
        raise IndexWriteError(
            f'{path} cannot be locked for writing: {err}. Make room, check '
            'the permissions, or take a folder on a disk that can lock files.'
        ) from err
