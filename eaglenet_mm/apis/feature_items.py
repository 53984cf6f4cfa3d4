"""Which videos and texts features are extracted of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.search.video_files import find_videos

Item = dict[str, Any]


def list_items(
    source: str, videos: str | None = None
) -> tuple[list[Item], list[Item]]:
    """List the videos and texts of a folder or annotation file.

    Args:
        source (str): A folder (which has no texts) or an annotation file of
            the one schema.
        videos (str, optional): Folder of the videos of the file. Default:
            the one it lies in.

    Returns:
        tuple[list[dict], list[dict]]: Videos: ``video_id``, ``path``,
        ``start``, ``end``. Texts: ``text``, ``video`` (place of its video,
        None for one that stands with no video).

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError, KeyError, TypeError: If it has no videos, or the file
            breaks the schema.
    """
    if not source.endswith('.json'):
        paths = find_videos(source).paths
        return [
            dict(video_id=path, path=path, start=None, end=None)
            for path in paths
        ], []
    header, records = read_annotation(source)
    folder = videos if videos is not None else os.path.dirname(source)
    items = [
        dict(
            video_id=record['video_id'],
            path=os.path.abspath(os.path.join(folder, record['video'])),
            start=record.get('start'),
            end=record.get('end'),
        )
        for record in records
    ]
    texts = [
        dict(text=caption, video=place)
        for place, record in enumerate(records)
        for caption in record['captions']
    ]
    texts += [
        dict(text=query['caption'], video=None)
        for query in header.get('queries', [])
    ]
    return items, texts


def count_passed_over(source: str) -> dict[str, int]:
    """Count the files of a folder that :func:`list_items` leaves out.

    Args:
        source (str): As for :func:`list_items`.

    Returns:
        dict[str, int]: By ending; empty for an annotation file.
    """
    if source.endswith('.json'):
        return {}
    return find_videos(source).passed_over


def read_texts(path: str | os.PathLike) -> list[Item]:
    """Read further texts, one a line; blank lines are left out.

    Args:
        path (str | PathLike): The file, in UTF-8.

    Returns:
        list[dict]: ``text``, and None as ``video``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8.
    """
    try:
        lines = Path(path).read_text('utf-8-sig').splitlines()
    except UnicodeDecodeError as err:
        raise ValueError(
            f'{path} is no text in UTF-8 ({err.reason} at byte {err.start}). '
            'Save it again in UTF-8.'
        ) from err
    return [dict(text=line, video=None) for line in lines if line.strip()]
