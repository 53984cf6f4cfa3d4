"""Decoded frames in LMDB databases, one database per decoding recipe.

A cache is a folder with a subfolder per recipe, named by its hash::

    frame_cache/5c1e0a9b/recipe.json   the transforms that made the frames
                         frames.lmdb   one value per item

A value is a CRC-32 of the rest, the length of a JSON text, that text
(:class:`CacheEntry`) and the frames.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from mmengine.logging import print_log

from eaglenet_mm.utils.durable_file import write_text_durably
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock

# Raised when old databases become unreadable, or when readers or resizing
# change their output.
_FORMAT = 3
_RECIPE, _FRAMES, _LOCK = 'recipe.json', 'frames.lmdb', 'writer.lock'
# Transforms with deterministic output.
_FIXED = ('OpenVideo', 'SampleFrames', 'DecodeFrames', 'ResizeCenterCrop')
# A killed process loses what it added since the last commit. Each commit waits
# for the disk; uncommitted data is in memory.
_COMMIT_SECONDS, _COMMIT_BYTES = 2.0, 64 << 20
# Reserved address space; only written pages take disk space.
_MAP_SIZE = 1 << 40
# LMDB cannot open a database twice in a process, nor keep one open across a
# fork: threads take turns, and a fork waits for them.
_READING = threading.Lock()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(
        before=_READING.acquire,
        after_in_parent=_READING.release,
        after_in_child=_READING.release,
    )


@dataclass(frozen=True)
class CacheEntry:
    """Metadata of a cached item.

    Args:
        key (str): Identity of the video file and time range.
        shape (list[int]): ``[n, h, w, 3]``.
        frame_indices (list[int]): Frame numbers in the video.
        fps (str): Mean frame rate of the video, as a fraction.
        num_frames_reported (int): Number of frames according to the header.
        size (int): Size of the video file in bytes.
        changed (int): Modification time of the file in nanoseconds.
        digest (str): BLAKE2b hash of its content.
    """

    key: str
    shape: list[int]
    frame_indices: list[int]
    fps: str
    num_frames_reported: int
    size: int
    changed: int
    digest: str

    def is_current(
        self, path: str, known: dict[str, tuple[int, int]] | None = None
    ) -> bool:
        """Whether the frames belong to the present content of a file.

        If only the modification time differs, as for a copy, the content
        decides; ``known`` remembers such copies by key. A deleted file cannot
        differ.
        """
        known = {} if known is None else known
        try:
            status = os.stat(path)
            now = status.st_size, status.st_mtime_ns
            if now not in ((self.size, self.changed), known.get(self.key)):
                if now[0] != self.size or digest_file(path) != self.digest:
                    return False
                known[self.key] = now
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):
            return False
        return True


class FrameCache:
    """Cached frames that replace the first transforms of a pipeline.

    Each read verifies the checksum, and the size and modification time of the
    video file. An invalid item is logged once and decoded again. Frames of a
    deleted video are still used. Safe for threads and for loader workers,
    forked or spawned.

    Args:
        root (str | Path): Folder of the cache.
        transforms (Sequence[Callable]): The pipeline.
        data_root (str): Folder that names in the cache are relative to.
            Default: ''.

    Attributes:
        num_fixed (int): Number of transforms that the cache replaces.
        folder (Path): Folder of this pipeline's frames.

    Raises:
        FileNotFoundError: If there is no cache for this pipeline.
        ValueError: If the pipeline does not start with decoding frames.
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
        if not (self.folder / _FRAMES).is_file():
            raise FileNotFoundError(_no_cache(Path(root), recipe))
        self._reported: set[str] = set()
        self._known: dict[str, tuple[int, int]] = {}

    def fill(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """Return an item with the results of the cached transforms.

        Returns:
            dict: The item with ``frames`` (RGB, uint8, shape
            ``(n, h, w, 3)``), ``frame_indices``, ``num_frames_found``,
            ``fps`` and ``num_frames_reported``; None if it is not in the
            cache or invalid.
        """
        try:
            found = self.read(item_key(item, self.data_root))
        except (ValueError, OSError, lmdb.Error) as err:
            self._report(item, f'the frames are damaged ({err})')
            return None
        if found is None:
            return None
        entry, frames = found
        if not entry.is_current(item['video'], self._known):
            self._report(item, 'the video file has changed since')
            return None
        return {
            **item,
            'frames': frames,
            'frame_indices': list(entry.frame_indices),
            'num_frames_found': len(frames),
            'fps': Fraction(entry.fps),
            'num_frames_reported': entry.num_frames_reported,
        }

    def read(self, key: str) -> tuple[CacheEntry, np.ndarray] | None:
        """Read metadata and a copy of the frames; None if not in the cache.

        Raises:
            lmdb.Error: If the database cannot be opened.
            ValueError: If the item is damaged.
        """
        # reopened for each read, to notice a replaced file
        with (
            _READING,
            lmdb.open(
                str(self.folder / _FRAMES),
                subdir=False,
                readonly=True,
                create=False,
                lock=False,
            ) as database,
        ):
            return _read(database, key)

    def _report(self, item: dict[str, Any], reason: str) -> None:
        """Log once per video that it is not taken from the cache."""
        if item['video'] in self._reported:
            return
        self._reported.add(item['video'])
        print_log(
            f"Video '{item['video_id']}' ({item['video']}) is not taken from "
            f'the frame cache {self.folder} because {reason}. Run '
            'tools/cache_frames.py again.',
            logger='current',
            level=logging.WARNING,
        )


class FrameCacheWriter:
    """Exclusive writer of a frame cache.

    A killed process loses at most the last two seconds, never consistency.

    Args:
        root (str | Path): Folder of the cache; created if missing.
        recipe (Sequence[str]): Output of :func:`frame_recipe`.

    Attributes:
        folder (Path): Folder of the frames of this recipe.

    Raises:
        RuntimeError: If another process is writing to the cache.

    Example:
        >>> with FrameCacheWriter('frame_cache', ['DecodeFrames()']) as writer:
        ...     writer.read('["a.mp4", null, null]') is None
        True
    """

    def __init__(self, root: str | Path, recipe: Sequence[str]) -> None:
        self.folder = cache_folder(root, recipe)
        try:
            self._lock = take_lock(self.folder / _LOCK)
        except FolderInUseError as err:
            raise RuntimeError(
                f'{self.folder}: another process is writing to this frame '
                f'cache ({err.writer}). Wait until it is done.'
            ) from err
        self._transaction: Any = None
        self._begun, self._bytes = 0.0, 0
        try:
            content = dict(format=_FORMAT, transforms=list(recipe))
            write_text_durably(
                self.folder / _RECIPE, json.dumps(content, indent=1)
            )
            with _writing(self.folder):
                self._database = self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> Any:
        """Open the database, replacing it if it is unusable."""
        path = self.folder / _FRAMES
        # our lock replaces those of LMDB
        options: Any = dict(
            subdir=False, map_size=_MAP_SIZE, metasync=False, lock=False
        )
        # raised if the first page is missing, e.g. after the disk was full
        with suppress(lmdb.InvalidError):
            database = lmdb.open(str(path), **options)
            if not _is_cut_off(database):
                return database
            database.close()
        path.unlink()
        return lmdb.open(str(path), **options)

    def read(self, key: str) -> tuple[CacheEntry, np.ndarray] | None:
        """Read an item; see :meth:`FrameCache.read`."""
        self._commit()
        return _read(self._database, key)

    def add(
        self, key: str, frames: np.ndarray, about: dict[str, Any]
    ) -> CacheEntry:
        """Write the frames of an item, replacing earlier ones.

        Args:
            key (str): Key of the item.
            frames (np.ndarray): RGB, uint8, shape ``(n, h, w, 3)``.
            about (dict): Remaining fields of :class:`CacheEntry`.

        Raises:
            OSError: If it cannot be written, for example because the disk is
                full; committed items remain valid.
        """
        frames = np.ascontiguousarray(frames)
        entry = CacheEntry(key=key, shape=list(frames.shape), **about)
        text = json.dumps(asdict(entry)).encode()
        body = b''.join([len(text).to_bytes(4, 'little'), text, frames.data])
        with _writing(self.folder):
            if self._transaction is None:
                self._transaction = self._database.begin(write=True)
                self._begun, self._bytes = time.monotonic(), 0
            checksum = zlib.crc32(body).to_bytes(4, 'little')
            self._transaction.put(_digest(key), checksum + body)
        self._bytes += len(body)
        if (
            self._bytes >= _COMMIT_BYTES
            or time.monotonic() - self._begun >= _COMMIT_SECONDS
        ):
            self._commit()
        return entry

    def _commit(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            with _writing(self.folder):
                transaction.commit()

    def close(self) -> None:
        """Flush to disk and release the lock; raises like :meth:`add`."""
        try:
            self._commit()
            self._database.sync(True)
        finally:
            self._database.close()
            self._lock.close()

    def __enter__(self) -> FrameCacheWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _read(database: Any, key: str) -> tuple[CacheEntry, np.ndarray] | None:
    """Read and verify an item."""
    if _is_cut_off(database):
        raise ValueError('the file is truncated')
    with database.begin(buffers=True) as transaction:
        found = transaction.get(_digest(key))
        # copy before checking: a writer may reuse the pages meanwhile
        value = None if found is None else bytearray(found)
    if value is None:
        return None
    if len(value) < 8 or zlib.crc32(memoryview(value)[4:]) != int.from_bytes(
        value[:4], 'little'
    ):
        raise ValueError('the checksum does not match')
    end = 8 + int.from_bytes(value[4:8], 'little')
    entry = CacheEntry(**json.loads(value[8:end]))
    if entry.key != key:
        raise ValueError(f'they belong to {entry.key}')
    frames = np.frombuffer(value, np.uint8, offset=end)
    return entry, frames.reshape(entry.shape)


def _is_cut_off(database: Any) -> bool:
    """Whether pages are missing; reading those would crash the process."""
    pages = database.info()['last_pgno'] + 1
    size = os.path.getsize(database.path())
    return size < pages * database.stat()['psize']


def _digest(key: str) -> bytes:
    """Hash a key: LMDB keys have at most 511 bytes, paths may be longer."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Convert LMDB errors to OSError."""
    try:
        yield
    except lmdb.Error as err:
        raise OSError(
            f'{folder}: writing frames failed: {err}. Free some disk space, '
            'or correct the permissions of the folder, and start again; '
            'frames committed before are kept.'
        ) from err


def item_key(item: dict[str, Any], data_root: str) -> str:
    """Identify an item by file (relative to ``data_root``) and time range."""
    path = item['video']
    if data_root:
        path = os.path.relpath(path, data_root)
    name = Path(path).as_posix()
    return json.dumps([name, item.get('start'), item.get('end')])


def fixed_transforms(transforms: Sequence[Callable]) -> list[Callable]:
    """Return the leading transforms whose output is deterministic.

    Other transforms count if their attribute ``cacheable`` is true.
    """
    fixed: list[Callable] = []
    for transform in transforms:
        name = type(transform).__name__
        if name not in _FIXED and not getattr(transform, 'cacheable', False):
            break
        elsewhere = getattr(transform, 'backend_args', None)
        if elsewhere is not None:
            raise ValueError(
                'A frame cache needs video files in the file system, to '
                'notice changes, but OpenVideo has '
                f'backend_args={elsewhere}. Remove them.'
            )
        fixed.append(transform)
    if 'DecodeFrames' not in [type(x).__name__ for x in fixed]:
        raise ValueError(
            'A frame cache needs a pipeline that starts with OpenVideo, '
            'SampleFrames and DecodeFrames, but got '
            f'{[type(x).__name__ for x in transforms]}. Put them first.'
        )
    return fixed


def frame_recipe(transforms: Sequence[Callable]) -> list[str]:
    """Describe the part of a pipeline that is cached.

    Args:
        transforms (Sequence[Callable]): The pipeline. Transforms other than
            ours are cached if their attribute ``cacheable`` is true.

    Returns:
        list[str]: One line per transform.

    Raises:
        ValueError: If the pipeline does not start with decoding frames.
    """
    lines = []
    for transform in fixed_transforms(transforms):
        resize = getattr(transform, 'resize', None)
        # resizing during or after decoding gives the same frames
        lines += (
            [repr(transform)]
            if resize is None
            else [f'{type(transform).__name__}()', repr(resize)]
        )
    return lines


def cache_folder(root: str | Path, recipe: Sequence[str]) -> Path:
    """Return the folder of the frames of a recipe."""
    text = json.dumps([_FORMAT, *recipe]).encode()
    return Path(root) / hashlib.blake2b(text, digest_size=4).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return a hash of the content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _no_cache(root: Path, recipe: Sequence[str]) -> str:
    """Describe the caches that exist instead of the wanted one."""
    others, earlier = [], []
    for path in sorted(root.glob(f'*/{_RECIPE}')):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            others.append(' > '.join(content['transforms']))
            if content['format'] != _FORMAT:
                earlier.append(str(path.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    found = f'there are caches of {others}' if others else 'there is no cache'
    if earlier:
        found += (
            f', of which {earlier} have an outdated format and cannot be '
            'read: remove them'
        )
    return (
        f"Expected a frame cache of {' > '.join(recipe)} in '{root}', but "
        f'{found}. Make one with: python tools/cache_frames.py CONFIG, or '
        "leave 'frame_cache' out."
    )
