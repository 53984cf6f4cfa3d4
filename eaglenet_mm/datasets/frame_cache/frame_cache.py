"""Decoded frames in an LMDB database, one for each way of making them.

A cache is a folder with one folder for each way, named by a hash of it::

    frame_cache/5c1e0a9b/recipe.json   the transforms that made the frames
                         frames.lmdb   one value an item

A value is a CRC-32 of the rest, the length of a JSON text, that text (what
the frames are and which file they were made of) and the frames.
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

# Changes when earlier databases can no longer be read, and when readers or
# resizing deliver other frames than they did.
_FORMAT = 3
_RECIPE, _FRAMES, _LOCK = 'recipe.json', 'frames.lmdb', 'writer.lock'
# Transforms that give the same frames each time.
_FIXED = ('OpenVideo', 'SampleFrames', 'DecodeFrames', 'ResizeCenterCrop')
# A killed process loses what it added since the last commit; each waits for
# the disk, and what is not committed is in memory.
_COMMIT_SECONDS, _COMMIT_BYTES = 2.0, 64 << 20
# Address space, of which only what is written takes room on the disk.
_MAP_SIZE = 1 << 40
# LMDB refuses to open a database twice in a process, and one that is open may
# not cross a fork: threads read by turns, and a fork waits for them.
_READING = threading.Lock()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(
        before=_READING.acquire,
        after_in_parent=_READING.release,
        after_in_child=_READING.release,
    )


@dataclass(frozen=True)
class CacheEntry:
    """Facts of one cached item.

    Args:
        key (str): Its video file and part.
        shape (list[int]): ``[n, h, w, 3]``.
        frame_indices (list[int]): Numbers of the frames in the video.
        fps (str): Mean rate of the video, a fraction.
        num_frames_reported (int): Frames by the header of the video.
        size (int): Bytes of the video file.
        changed (int): Time of its last change in nanoseconds.
        digest (str): BLAKE2b of its content.
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
        """Whether the frames were made of this file as it is now.

        Where the time of change differs alone, as in a copy, the content
        decides; ``known`` remembers such copies by key. Where the file is
        gone, nothing can differ.
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
    """Frames of a cache in the place of the first transforms of a pipeline.

    Nothing is taken on trust: the checksum is compared at each reading, and
    size and time of change of the video file with those at the time of
    caching. What does not agree is logged once and decoded anew. A video that
    is no longer there is taken from the cache. Fit for threads, and for
    workers of a loader, forked or spawned.

    Args:
        root (str | Path): Folder of the cache.
        transforms (Sequence[Callable]): The pipeline.
        data_root (str): Folder to which names in the cache are relative.
            Default: ''.

    Attributes:
        num_fixed (int): Transforms at the beginning of the pipeline that the
            cache stands for.
        folder (Path): Folder of this pipeline's frames.

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
        if not (self.folder / _FRAMES).is_file():
            raise FileNotFoundError(_no_cache(Path(root), recipe))
        self._reported: set[str] = set()
        self._known: dict[str, tuple[int, int]] = {}

    def fill(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """Give an item what the cached transforms would.

        Returns:
            dict: With ``frames`` (RGB, uint8, shape ``(n, h, w, 3)``),
            ``frame_indices``, ``num_frames_found``, ``fps`` and
            ``num_frames_reported``. None if the cache does not have it, or
            not in order.
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
        """Read facts and frames (a copy) by key; None if they are not there.

        Raises:
            lmdb.Error: If the database cannot be opened.
            ValueError: If what it holds is damaged.
        """
        # open for one reading: it would not notice a file that is replaced
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
        """Log a video once that is decoded although it is in the cache."""
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


class FrameCacheWriter:
    """The one writer of a cache.

    A process that is killed loses the last two seconds at most and leaves
    nothing by halves.

    Args:
        root (str | Path): Folder of the cache; made if missing.
        recipe (Sequence[str]): How the frames are made, by
            :func:`frame_recipe`.

    Attributes:
        folder (Path): Folder of the frames of this recipe.

    Raises:
        RuntimeError: If another process is writing to it.

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
                f'cache ({err.writer}). Wait until it has finished.'
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
        """Open the database, a new one in the place of one past use."""
        path = self.folder / _FRAMES
        # no locks of LMDB: ours tells who writes
        options: Any = dict(
            subdir=False, map_size=_MAP_SIZE, metasync=False, lock=False
        )
        # of a file without its first page, as a full disk may leave it
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
        """Write the frames of an item, in the place of earlier ones.

        Args:
            key (str): Name of the item.
            frames (np.ndarray): RGB, uint8, shape ``(n, h, w, 3)``.
            about (dict): The other values of :class:`CacheEntry`.

        Raises:
            OSError: If it cannot be written, as on a full disk; what was
                committed before stays valid.
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
        """Make what was added valid."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            with _writing(self.folder):
                transaction.commit()

    def close(self) -> None:
        """Bring all to the disk and let others write; OSError as in add()."""
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
    """Read and check a value."""
    if _is_cut_off(database):
        raise ValueError('the file is cut off')
    with database.begin(buffers=True) as transaction:
        found = transaction.get(_digest(key))
        # a copy, or what is checked here is not what is given out: a writer
        # may use the pages again meanwhile
        value = None if found is None else bytearray(found)
    if value is None:
        return None
    if len(value) < 8 or zlib.crc32(memoryview(value)[4:]) != int.from_bytes(
        value[:4], 'little'
    ):
        raise ValueError('the checksum is another')
    end = 8 + int.from_bytes(value[4:8], 'little')
    entry = CacheEntry(**json.loads(value[8:end]))
    if entry.key != key:
        raise ValueError(f'they are those of {entry.key}')
    frames = np.frombuffer(value, np.uint8, offset=end)
    return entry, frames.reshape(entry.shape)


def _is_cut_off(database: Any) -> bool:
    """Whether pages are missing; reading these would end the process."""
    pages = database.info()['last_pgno'] + 1
    size = os.path.getsize(database.path())
    return size < pages * database.stat()['psize']


def _digest(key: str) -> bytes:
    """Shorten a key: LMDB takes 511 bytes, paths may be longer."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn errors of LMDB into errors of the system."""
    try:
        yield
    except lmdb.Error as err:
        raise OSError(
            f'{folder}: expected to write frames, but got: {err}. Free some '
            'space on the disk, or correct the rights of the folder, and '
            'start again; what was committed before stays.'
        ) from err


def item_key(item: dict[str, Any], data_root: str) -> str:
    """Name an item by its file, relative to a folder if given, and part."""
    path = item['video']
    if data_root:
        path = os.path.relpath(path, data_root)
    name = Path(path).as_posix()
    return json.dumps([name, item.get('start'), item.get('end')])


def fixed_transforms(transforms: Sequence[Callable]) -> list[Callable]:
    """Find the first transforms, as far as they give the same frames always.

    Those of others take part if they have a true attribute ``cacheable``.
    """
    fixed: list[Callable] = []
    for transform in transforms:
        name = type(transform).__name__
        if name not in _FIXED and not getattr(transform, 'cacheable', False):
            break
        elsewhere = getattr(transform, 'backend_args', None)
        if elsewhere is not None:
            raise ValueError(
                'A frame cache notices changed videos by their files, so it '
                'needs them in the file system, but OpenVideo has '
                f'backend_args={elsewhere}. Leave them out.'
            )
        fixed.append(transform)
    if 'DecodeFrames' not in [type(x).__name__ for x in fixed]:
        raise ValueError(
            'Caching frames needs a pipeline that begins with OpenVideo, '
            'SampleFrames and DecodeFrames, but got '
            f'{[type(x).__name__ for x in transforms]}. Put them first.'
        )
    return fixed


def frame_recipe(transforms: Sequence[Callable]) -> list[str]:
    """Describe how frames are made: the part of a pipeline that is cached.

    Args:
        transforms (Sequence[Callable]): The pipeline. Transforms of others
            take part if they have an attribute ``cacheable`` that is true.

    Returns:
        list[str]: A line for each transform of the part.

    Raises:
        ValueError: If the pipeline does not begin with decoding frames.
    """
    lines = []
    for transform in fixed_transforms(transforms):
        resize = getattr(transform, 'resize', None)
        # resized while decoding or after it: the frames are the same
        lines += (
            [repr(transform)]
            if resize is None
            else [f'{type(transform).__name__}()', repr(resize)]
        )
    return lines


def cache_folder(root: str | Path, recipe: Sequence[str]) -> Path:
    """Return the folder of a cache that holds frames of a recipe."""
    text = json.dumps([_FORMAT, *recipe]).encode()
    return Path(root) / hashlib.blake2b(text, digest_size=4).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return a digest of the content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _no_cache(root: Path, recipe: Sequence[str]) -> str:
    """Say what is there in the place of the cache that is wanted."""
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
            f', of which {earlier} are of an earlier version and can no '
            'longer be read: remove them'
        )
    return (
        f"Expected a frame cache of {' > '.join(recipe)} in '{root}', but "
        f'{found}. Make one with: python tools/cache_frames.py CONFIG, or '
        "leave 'frame_cache' out."
    )
