"""Take frames from a cache, if they are what the video would give."""

from __future__ import annotations

import json
import logging
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from .layout import (
    INDEX,
    RECIPE,
    CacheEntry,
    cache_folder,
    digest_file,
    fixed_transforms,
    frame_recipe,
    item_key,
    read_index,
    shard_path,
)


class FrameCache:
    """Frames of a cache, read by memory map, in the place of a pipeline part.

    Nothing is taken on trust: the checksum of the frames is compared at each
    reading, and size and time of change of the video file with those at the
    time of caching; where the time differs alone, as in a copy, the content
    decides. What does not agree is logged once and decoded anew. A video
    that is no longer there is taken from the cache.

    Args:
        root (str | Path): Folder of the cache.
        transforms (Sequence[Callable]): The pipeline.
        data_root (str): Folder to which names in the cache are relative.

    Attributes:
        num_fixed (int): Transforms at the beginning of the pipeline that the
            cache stands for.
        entries (dict[str, CacheEntry]): What is there.

    Raises:
        FileNotFoundError: If there is no cache, or none of this pipeline.
        ValueError: If the pipeline does not begin with decoding frames.
    """

    def __init__(
        self,
        root: str | Path,
        transforms: Sequence[Callable],
        *,
        data_root: str = '',
    ) -> None:
        recipe = frame_recipe(transforms)
        self.num_fixed = len(fixed_transforms(transforms))
        self.data_root = data_root
        self.folder = cache_folder(root, recipe)
        if not (self.folder / INDEX).is_file():
            raise FileNotFoundError(_no_cache(Path(root), recipe))
        self.entries, damaged = read_index(self.folder)
        self._reported: set[str] = set()
        self._same_content: dict[str, tuple[int, int]] = {}
        self._maps: dict[int, mmap.mmap] = {}
        if damaged:
            print_log(
                f'{self.folder / INDEX}: {damaged} lines are damaged or cut '
                'off and count for nothing; tools/cache_frames.py makes these '
                'items again.',
                logger='current',
                level=logging.WARNING,
            )

    def fill(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """Give an item what the cached part of the pipeline would.

        Args:
            item (dict): Of the data set, before the pipeline.

        Returns:
            dict: With ``frames`` (RGB, uint8, shape ``(n, h, w, 3)``),
            ``frame_indices``, ``num_frames_found``, ``fps`` and
            ``num_frames_reported``. None if the cache does not have it, or
            not in order.
        """
        key = item_key(item, self.data_root)
        entry = self.entries.get(key)
        if entry is None:
            return None
        if not self.is_current(entry, item['video']):
            self._report(item, 'the video file has changed since')
            return None
        frames = self.read(entry)
        if frames is None:
            self._report(item, 'the frames are damaged')
            return None
        return {
            **item,
            'frames': frames,
            'frame_indices': list(entry.frame_indices),
            'num_frames_found': len(frames),
            'fps': Fraction(entry.fps),
            'num_frames_reported': entry.num_frames_reported,
        }

    def is_current(self, entry: CacheEntry, path: str) -> bool:
        """Whether the frames were made of this file as it is now.

        Args:
            entry (CacheEntry): What the cache holds.
            path (str): The video file; where it is gone, nothing can differ.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):
            return False
        now = (status.st_size, status.st_mtime_ns)
        if now == (entry.size, entry.changed):
            return True
        if self._same_content.get(entry.key) == now:
            return True
        try:
            same = (
                status.st_size == entry.size
                and digest_file(path) == entry.digest
            )
        except OSError:
            return False
        if same:
            self._same_content[entry.key] = now
        return same

    def read(self, entry: CacheEntry) -> np.ndarray | None:
        """Read frames; None if they are damaged.

        Args:
            entry (CacheEntry): Of :attr:`entries`.

        Returns:
            np.ndarray: RGB, uint8, shape ``(n, h, w, 3)``, a copy.
        """
        try:
            mapped = self._map(entry.shard)
        except (OSError, ValueError):  # gone, or empty
            return None
        if entry.offset + entry.num_bytes > len(mapped):
            return None
        frames = np.frombuffer(
            mapped, np.uint8, entry.num_bytes, entry.offset
        ).copy()
        if zlib.crc32(frames.data) != entry.checksum:
            return None
        return frames.reshape(entry.shape)

    def _map(self, shard: int) -> mmap.mmap:
        """Map a file into memory, once in each process."""
        if shard not in self._maps:
            with open(shard_path(self.folder, shard), 'rb') as file:
                self._maps[shard] = mmap.mmap(
                    file.fileno(), 0, access=mmap.ACCESS_READ
                )
        return self._maps[shard]

    def _report(self, item: dict[str, Any], reason: str) -> None:
        """Log an item once that is decoded although it is in the cache."""
        if item['video'] in self._reported:
            return
        self._reported.add(item['video'])
        print_log(
            f"Video '{item['video_id']}' ({item['video']}) is not taken from "
            f'the frame cache {self.folder}, since {reason}. Run '
            'tools/cache_frames.py again.',
            logger='current',
            level=logging.WARNING,
        )

    def __getstate__(self) -> dict[str, Any]:
        # memory maps do not travel to other processes
        return {**self.__dict__, '_maps': {}}


def _no_cache(root: Path, recipe: Sequence[str]) -> str:
    """Say what is there in the place of the cache that is wanted."""
    others = []
    for path in sorted(root.glob(f'*/{RECIPE}')):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            others.append(' > '.join(content['transforms']))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    found = f'there are caches of {others}' if others else 'there is no cache'
    return (
        f"Expected a frame cache of {' > '.join(recipe)} in '{root}', but "
        f'{found}. Make one with: python tools/cache_frames.py CONFIG, or '
        "leave 'frame_cache' out."
    )
