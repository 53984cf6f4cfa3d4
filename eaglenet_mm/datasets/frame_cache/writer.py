"""Add frames to a cache."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .layout import (
    FORMAT,
    INDEX,
    RECIPE,
    CacheEntry,
    cache_folder,
    read_index,
    shard_path,
)

try:
    import fcntl
except ImportError:  # not on Windows, where two writers are not noticed
    fcntl = None  # type: ignore[assignment]


class FrameCacheWriter:
    """The one writer of a cache; what it adds is there when it returns.

    Args:
        root (str | Path): Folder of the cache; made if missing.
        recipe (Sequence[str]): How the frames are made.
        shard_bytes (int): Size at which another file is begun. Defaults to
            1 GiB.

    Attributes:
        folder (Path): Where the frames of this recipe lie.
        entries (dict[str, CacheEntry]): What is there, by key.

    Raises:
        RuntimeError: If another process is writing to it.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Sequence[str],
        *,
        shard_bytes: int = 1 << 30,
    ) -> None:
        self.folder = cache_folder(root, recipe)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard_bytes = shard_bytes
        # unbuffered: what cannot be written raises where it is written
        self._index = open(self.folder / INDEX, 'ab', buffering=0)  # noqa: SIM115
        self._frames: FileIO | None = None
        try:
            self._lock()
            self._write_recipe(recipe)
            self._drop_half_a_line()
            self.entries, _ = read_index(self.folder)
        except BaseException:
            self._index.close()
            raise
        self._shard, self._offset = self._end()

    def add(
        self, key: str, frames: np.ndarray, about: dict[str, Any]
    ) -> CacheEntry:
        """Write the frames of an item, then the line that makes them valid.

        Args:
            key (str): Name of the item; an earlier one is superseded.
            frames (np.ndarray): RGB, uint8, shape ``(n, h, w, 3)``.
            about (dict): The other values of :class:`CacheEntry`.

        Returns:
            CacheEntry: What was added.

        Raises:
            OSError: If it cannot be written, as on a full disk; what was
                there before stays valid.
        """
        frames = np.ascontiguousarray(frames)
        if self._offset and self._offset + frames.nbytes > self._shard_bytes:
            self._close_frames()
            self._shard, self._offset = self._shard + 1, 0
        entry = CacheEntry(
            key=key,
            shard=self._shard,
            offset=self._offset,
            shape=list(frames.shape),
            checksum=zlib.crc32(frames.data),
            **about,
        )
        if self._frames is None:
            path = shard_path(self.folder, self._shard)
            self._frames = open(path, 'ab', buffering=0)  # noqa: SIM115
            # half an item of an interrupted run lies behind the valid ones
            self._frames.truncate(self._offset)
        try:
            _write_all(self._frames, frames.data)
            _write_all(self._index, memoryview(entry.to_line()))
        except OSError:
            self.close()  # nothing may follow half a line
            raise
        self._offset += entry.num_bytes
        self.entries[key] = entry
        return entry

    def close(self) -> None:
        """Bring all to the disk and let others write."""
        self._close_frames()
        if not self._index.closed:
            os.fsync(self._index.fileno())
            self._index.close()

    def __enter__(self) -> FrameCacheWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        """Keep others from writing; the system lets go when we end."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._index, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise RuntimeError(
                f'{self.folder}: another process is writing to this frame '
                'cache. Wait until it has finished.'
            ) from err

    def _write_recipe(self, recipe: Sequence[str]) -> None:
        """Say in words what the name of the folder stands for."""
        temporary = self.folder / f'.{RECIPE}.tmp'
        content = dict(format=FORMAT, transforms=list(recipe))
        temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')
        os.replace(temporary, self.folder / RECIPE)

    def _drop_half_a_line(self) -> None:
        """Cut off what an interrupted run wrote last."""
        content = (self.folder / INDEX).read_bytes()
        self._index.truncate(content.rfind(b'\n') + 1)

    def _end(self) -> tuple[int, int]:
        """Where the next item goes."""
        ends = [
            (entry.shard, entry.offset + entry.num_bytes)
            for entry in self.entries.values()
        ]
        shard, offset = max(ends, default=(0, 0))
        # never write into a shard of which lines of the index are damaged
        others = [int(path.stem) for path in self.folder.glob('*.frames')]
        if others and max(others) > shard:
            return max(others) + 1, 0
        return shard, offset

    def _close_frames(self) -> None:
        if self._frames is not None:
            os.fsync(self._frames.fileno())
            self._frames.close()
            self._frames = None


def _write_all(file: FileIO, data: memoryview) -> None:
    """Write all bytes; one call may write a part of them."""
    data = data.cast('B')
    while data:
        data = data[file.write(data) :]
