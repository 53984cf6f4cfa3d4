"""Which video files there are, and how they are cut into segments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

#: Endings of the files that a folder is searched for.
# fmt: off
ENDINGS = frozenset((
    '.3gp', '.avi', '.flv', '.gif', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4',
    '.mpeg', '.mpg', '.mts', '.mxf', '.ogv', '.ts', '.vob', '.webm', '.wmv',
))
# fmt: on


def find_videos(
    source: str | os.PathLike | Iterable[str | os.PathLike],
) -> list[str]:
    """List video files.

    Args:
        source (str | PathLike | Iterable): A folder, which is searched with
            all folders below it (hidden ones apart) for :data:`ENDINGS`; a
            file; or several of either.

    Returns:
        list[str]: Absolute paths, sorted, each once.

    Raises:
        FileNotFoundError: If a folder or file does not exist.
        ValueError: If there is no video at all.
    """
    if isinstance(source, str | os.PathLike):
        source = [source]
    sources = list(source)
    found: set[str] = set()
    for one in map(Path, sources):
        if one.is_dir():
            found.update(_below(one))
        elif one.is_file():
            found.add(os.path.abspath(one))
        else:
            raise FileNotFoundError(
                f'Videos were expected at {one}, but there is neither a file '
                'nor a folder of that name.'
            )
    if not found:
        names = ', '.join(map(str, sources[:3])) or 'the list'
        raise ValueError(
            f'{names} has no videos: no file ends with one of '
            f'{", ".join(sorted(ENDINGS))}. Give another folder, or the '
            'files by name.'
        )
    return sorted(found)


def _below(folder: Path) -> Iterable[str]:
    for root, folders, files in os.walk(os.path.abspath(folder)):
        folders[:] = [name for name in folders if not name.startswith('.')]
        for name in files:
            ending = os.path.splitext(name)[1].lower()
            path = os.path.join(root, name)
            # a link to nowhere is reported when it is read; pipes and the
            # like are no videos
            wanted = os.path.isfile(path) or os.path.islink(path)
            if wanted and ending in ENDINGS and not name.startswith('.'):
                yield path


def cut_segments(duration: float, segment: float) -> list[tuple[float, float]]:
    """Cut a video into segments of equal length.

    A rest of less than half a segment belongs to the last one.

    Args:
        duration (float): Seconds of the video.
        segment (float): Seconds of a segment, positive.

    Returns:
        list[tuple[float, float]]: First second and end of each; one at least.

    Example:
        >>> cut_segments(24, 10)
        [(0.0, 10.0), (10.0, 24.0)]
    """
    count = max(1, int(duration / segment + 0.5))
    ends = [segment * (number + 1) for number in range(count - 1)]
    edges = [0.0, *map(float, ends), float(duration)]
    return list(pairwise(edges))
