"""How a frame cache lies on disk.

A cache is a folder with one folder for each way of making frames, named by a
hash of it::

    frame_cache/5c1e0a9b/recipe.json     the transforms that made the frames
                         index.txt       one line an item, added at the end
                         00000.frames    frames, one item behind the other
                         00001.frames

A line of the index is a checksum of the rest, and JSON that says where the
frames lie, what they are, their checksum, and which file they were made of.
It is written after the frames: what an interrupted run, or a full disk, left
behind has no line, or half of one, and counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Changes when files of older versions can no longer be read, and when readers
#: or resizing deliver other frames than they did.
FORMAT = 2
RECIPE, INDEX = 'recipe.json', 'index.txt'
# Transforms that give the same frames each time.
_FIXED = ('OpenVideo', 'SampleFrames', 'DecodeFrames', 'ResizeCenterCrop')


@dataclass(frozen=True)
class CacheEntry:
    """One item of a cache.

    Args:
        key (str): See :func:`item_key`.
        shard (int): Number of the file.
        offset (int): First byte in it.
        shape (list[int]): ``[n, h, w, 3]``.
        checksum (int): CRC-32 of the frames.
        frame_indices (list[int]): Numbers of the frames in the video.
        fps (str): Mean rate of the video, a fraction.
        num_frames_reported (int): Frames by the header of the video.
        size (int): Bytes of the video file.
        changed (int): Time of its last change in nanoseconds.
        digest (str): BLAKE2b of its content.
    """

    key: str
    shard: int
    offset: int
    shape: list[int]
    checksum: int
    frame_indices: list[int]
    fps: str
    num_frames_reported: int
    size: int
    changed: int
    digest: str

    @property
    def num_bytes(self) -> int:
        """int: Bytes of the frames."""
        count, height, width, channels = self.shape
        return count * height * width * channels

    def to_line(self) -> bytes:
        """Make a line of the index."""
        text = json.dumps(asdict(self), ensure_ascii=True).encode()
        return b'%08x %s\n' % (zlib.crc32(text), text)

    @classmethod
    def from_line(cls, line: bytes) -> CacheEntry | None:
        """Read a line; None if it is damaged or of another version."""
        try:
            checksum, text = line.rstrip(b'\n').split(b' ', 1)
            if int(checksum, 16) != zlib.crc32(text):
                return None
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard."""
    return folder / f'{shard:05d}.frames'


def item_key(item: dict[str, Any], data_root: str) -> str:
    """Name an item: its file and the part of it.

    Args:
        item (dict): Of the data set, before the pipeline.
        data_root (str): Folder to which the name is relative, so that a data
            set may move; '' keeps the path as it is.

    Returns:
        str: The same for all splits that use the video.
    """
    path = item['video']
    if data_root:
        path = os.path.relpath(path, data_root)
    name = Path(path).as_posix()
    return json.dumps([name, item.get('start'), item.get('end')])


def fixed_transforms(transforms: Sequence[Callable]) -> list[Callable]:
    """Find the part of a pipeline whose frames can be cached.

    Args:
        transforms (Sequence[Callable]): The pipeline. Transforms of others
            take part if they have an attribute ``cacheable`` that is true.

    Returns:
        list[Callable]: Its first transforms, as far as they give the same
        frames each time.

    Raises:
        ValueError: If these do not decode frames.
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
    """Say how frames are made: the part of a pipeline that is cached.

    Args:
        transforms (Sequence[Callable]): The pipeline.

    Returns:
        list[str]: A line for each transform of the part.

    Raises:
        ValueError: See :func:`fixed_transforms`.
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
    """Return the folder of a cache that holds frames of this recipe."""
    text = json.dumps([FORMAT, *recipe]).encode()
    return Path(root) / hashlib.blake2b(text, digest_size=4).hexdigest()


def read_index(folder: Path) -> tuple[dict[str, CacheEntry], int]:
    """Read the index of a cache.

    Args:
        folder (Path): Of :func:`cache_folder`.

    Returns:
        tuple[dict[str, CacheEntry], int]: Entries by key, later ones in the
        place of earlier ones, and the number of lines that are damaged.
        Entries beyond the end of their file count as damaged.
    """
    entries: dict[str, CacheEntry] = {}
    sizes: dict[int, int] = {}
    damaged = 0
    content = (folder / INDEX).read_bytes()
    for line in content.splitlines(keepends=True):
        # a line without an end was interrupted
        entry = CacheEntry.from_line(line) if line.endswith(b'\n') else None
        if entry is not None and entry.shard not in sizes:
            path = shard_path(folder, entry.shard)
            sizes[entry.shard] = path.stat().st_size if path.is_file() else 0
        if (
            entry is None
            or entry.offset + entry.num_bytes > sizes[entry.shard]
        ):
            damaged += 1
            continue
        entries[entry.key] = entry
    return entries, damaged


def digest_file(path: str | Path) -> str:
    """Return a digest of the content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
