"""Telling which video files of a folder have changed, as it happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eaglenet_mm.search.video_files import ENDINGS, ending_of, find_videos

#: Seconds for which size and time of a file must not change.
SETTLED = 2.0


def watch_videos(
    videos: Sequence[str | os.PathLike],
    *,
    poll: bool = False,
    stop: Any = None,
) -> Iterator[list[str]]:
    """Watch folders and files until Ctrl-C.

    A file that is still being written is told of when it stands still. One
    that is deleted, or a folder that is moved away, is told of by its name.
    The first list is empty: now everything is watched, so that nothing falls
    between a look at the folders and this. ``poll`` looks again and again
    instead of being told by the system, which network disks do not do;
    ``stop`` is a ``threading.Event``.
    """
    try:
        from watchfiles import watch
    except ImportError as err:
        raise ImportError(
            'Watching folders needs watchfiles. Install it with: pip install '
            "'eaglenet_mm[watch]'."
        ) from err
    roots = [os.path.abspath(video) for video in videos]
    # a file may be replaced by another of its name
    folders = {x if os.path.isdir(x) else os.path.dirname(x) for x in roots}
    moving: dict[str, tuple[Any, float]] = {}
    changes = watch(
        *folders,
        watch_filter=None,
        stop_event=stop,
        rust_timeout=int(SETTLED * 250),
        yield_on_timeout=True,
        raise_interrupt=False,
        force_polling=poll or None,
    )
    for number, changed in enumerate(changes):
        if not number:
            yield []
        now = time.monotonic()
        for path in {x for _, x in changed}:
            for own in _videos_of(path, roots):
                moving[own] = _state(own), now
        settled = []
        for path, (state, since) in list(moving.items()):
            if _state(path) != state:
                moving[path] = _state(path), now
            elif now - since >= SETTLED:
                settled.append(path)
                del moving[path]
        if settled:
            yield sorted(settled)


def _state(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _videos_of(path: str, roots: Sequence[str]) -> list[str]:
    """List the videos that a change at a path is about."""
    if path in roots and not os.path.isdir(path):
        return [path]
    below = [x for x in roots if path == x or path.startswith(f'{x}/')]
    if not below or any(
        part.startswith('.') for part in Path(path[len(below[0]) :]).parts
    ):
        return []
    if os.path.isdir(path):
        try:
            return find_videos(path).paths
        except ValueError:  # no videos
            return []
    # a folder that is gone has no ending of its own
    is_video = ending_of(path) in ENDINGS
    return [path] if is_video or not os.path.exists(path) else []
