"""Which video files there are, and how they are cut into segments."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from eaglenet_mm.utils.near_match import near_match_hint
from eaglenet_mm.utils.printable import printable

#: Endings of the files that a folder is searched for: of containers and raw
#: streams that FFmpeg reads and that mostly hold pictures that move. Left out
#: are those that mean something else more often (``.ogg``, ``.ps``, ``.mod``,
#: ``.dat``).
# fmt: off
ENDINGS = frozenset((
    '.264', '.265', '.3g2', '.3gp', '.3gpp', '.amv', '.apng', '.asf', '.avi',
    '.avif', '.dav', '.divx', '.dv', '.dvr-ms', '.evo', '.f4v', '.flv',
    '.gif', '.gxf', '.h264', '.h265', '.hevc', '.insv', '.ismv', '.ivf',
    '.lrv', '.m1v', '.m2p', '.m2t', '.m2ts', '.m2v', '.m4v', '.mj2',
    '.mjpeg', '.mjpg', '.mk3d', '.mkv', '.mov', '.mp4', '.mpe', '.mpeg',
    '.mpg', '.mts', '.mxf', '.nut', '.obu', '.ogm', '.ogv', '.qt', '.rm',
    '.rmvb', '.tod', '.trp', '.ts', '.vob', '.webm', '.wmv', '.wtv', '.xvid',
    '.y4m',
))
# fmt: on


@dataclass(frozen=True)
class FoundVideos:
    """What a search for videos found."""

    #: Absolute paths of videos, sorted, each once.
    paths: list[str]
    #: How many files of the searched folders were not looked at, by their
    #: ending in lower case; hidden files are not counted.
    passed_over: dict[str, int] = field(default_factory=dict)


def find_videos(
    source: str | os.PathLike | Iterable[str | os.PathLike],
) -> FoundVideos:
    """List video files: those named, and those below folders.

    A folder is searched for :data:`ENDINGS`, hidden folders and files apart.
    One that does not exist, and no video at all, are errors.
    """
    if isinstance(source, str | os.PathLike):
        source = [source]
    sources = list(source)
    found: set[str] = set()
    others: set[str] = set()
    for one in map(Path, sources):
        if one.is_dir():
            for path in _below(one):
                is_video = ending_of(path) in ENDINGS
                (found if is_video else others).add(path)
        elif one.is_file():
            found.add(os.path.abspath(one))
        else:
            raise FileNotFoundError(
                f'Videos were expected at {one}, but there is neither a file '
                f'nor a folder of that name.{near_match_hint(str(one))}'
            )
    # a file may be named that its folder is searched without
    counts = Counter(ending_of(path) for path in others - found)
    passed_over = dict(counts.most_common())
    if not found:
        names = ', '.join(map(str, sources[:3])) or 'the list'
        there = describe_passed_over(passed_over)
        raise ValueError(
            f'{names} has no videos: no file ends with one of '
            f'{", ".join(sorted(ENDINGS))}. '
            + (f'There are {there}. ' if there else '')
            + 'Give another folder, or the files by name.'
        )
    return FoundVideos(sorted(found), passed_over)


def ending_of(path: str) -> str:
    """Ending of a name in lower case, with its dot; empty if it has none."""
    return os.path.splitext(path)[1].lower()


def tell_passed_over(passed_over: Mapping[str, int]) -> str:
    """Say in a line of text that files were not looked at.

    Example:
        >>> tell_passed_over({'.md': 1})
        '1 other file (1 .md) was not looked at; name it to have it read'
    """
    others = describe_passed_over(passed_over)
    if sum(passed_over.values()) == 1:
        return f'{others} was not looked at; name it to have it read'
    return f'{others} were not looked at; name them to have them read'


def describe_passed_over(
    passed_over: Mapping[str, int], num_named: int = 5
) -> str:
    """Say how many files were not looked at, and their endings."""
    total = sum(passed_over.values())
    if not total:
        return ''
    ordered = sorted(passed_over.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in ordered[num_named:])
    named = [
        printable(f'{count} {ending or "without an ending"}')
        for ending, count in ordered[:num_named]
    ]
    named += [f'{rest} with others'] * bool(rest)
    return f'{total} other file{"s" * (total > 1)} ({", ".join(named)})'


def _below(folder: Path) -> Iterable[str]:
    """List the files below a folder that are not hidden."""
    for root, folders, files in os.walk(os.path.abspath(folder)):
        folders[:] = [name for name in folders if not name.startswith('.')]
        for name in files:
            path = os.path.join(root, name)
            # a link to nowhere is reported when it is read; pipes and the
            # like are no videos
            is_file = os.path.isfile(path) or os.path.islink(path)
            if is_file and not name.startswith('.'):
                yield path


def cut_segments(
    duration: float, segment: float, *, begin: float = 0.0
) -> list[tuple[float, float]]:
    """Cut a video into segments of equal length.

    A rest of less than half a segment belongs to the last one; what ends
    before ``begin`` is left out.

    Example:
        >>> cut_segments(24, 10)
        [(0.0, 10.0), (10.0, 24.0)]
    """
    count = max(1, int(duration / segment + 0.5))
    first = min(max(0, int(begin / segment)), count - 1)
    edges = [float(segment * number) for number in range(first, count)]
    return list(pairwise([*edges, float(duration)]))
