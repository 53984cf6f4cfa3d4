"""What ``tools/extract_features.py`` does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.search.moment_reading import (
    MomentReader,
    ReadMoments,
    pad_times,
)
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.structures import VideoFeatures
from eaglenet_mm.utils.progress import Progress

#: Videos after which what is done is safe.
_PART = 256

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
        ``start``, ``end``. Texts: ``text``, ``video`` (place of its video).

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError, KeyError, TypeError: If it has no videos, or the file
            breaks the schema.
    """
    if not source.endswith('.json'):
        paths = find_videos(source)
        return [
            dict(video_id=path, path=path, start=None, end=None)
            for path in paths
        ], []
    _, records = read_annotation(source)
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
    return items, texts


def extract_features(
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    texts: Sequence[Item],
    out: str | os.PathLike,
    *,
    num_workers: int = 2,
) -> FeatureFile:
    """Encode videos and texts into one file.

    What is finished is kept beside the file until all is, so that the same
    call goes on after an interruption. Videos that cannot be read are left
    out and listed in ``about['unreadable']``.

    Args:
        encoder (RetrieverEncoder): The model.
        items (Sequence[dict]): Of :func:`list_items`.
        texts (Sequence[dict]): Of :func:`list_items`.
        out (str | PathLike): The file, ``.safetensors``.
        num_workers (int): Processes that read videos.

    Returns:
        FeatureFile: What was written.

    Raises:
        OSError: If it cannot be written.
        ValueError: If nothing could be read.
    """
    out = Path(out)
    folder = out.with_name(f'.{out.name}.parts')
    _begin(folder, encoder, items)
    progress = Progress('videos', len(items))
    parts = []
    for first in range(0, len(items), _PART):
        path = folder / f'{first:09d}.safetensors'
        if not path.exists():
            part = _encode(encoder, items[first : first + _PART], num_workers)
            part.save(path)
        parts.append(FeatureFile.load(path))
        progress.update(min(_PART, len(items) - first))
    progress.close()
    joined = FeatureFile.join(parts)
    if joined.videos is None:
        raise ValueError(
            f'None of {len(items)} videos could be read; the first: '
            f'{next(iter(joined.about["unreadable"].items()))}.'
        )
    joined.about['model'] = dict(
        fingerprint=encoder.identity.fingerprint,
        checkpoint=encoder.identity.checkpoint,
        untrained=encoder.identity.untrained,
    )
    _add_texts(joined, encoder, items, texts)
    joined.save(out)
    shutil.rmtree(folder)
    return joined


def _begin(
    folder: Path, encoder: RetrieverEncoder, items: Sequence[Item]
) -> None:
    """Make the folder of what is finished; empty it if of another task."""
    task = json.dumps([encoder.identity.fingerprint, list(items)])
    name = folder / 'task.json'
    if name.exists() and name.read_text('utf-8') == task:
        print_log(f'Going on with {folder}', logger='current')
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name.write_text(task, encoding='utf-8')


def _encode(
    encoder: RetrieverEncoder, items: Sequence[Item], num_workers: int
) -> FeatureFile:
    """Encode some videos."""
    reader = MomentReader(encoder.pipeline, num_workers=num_workers)
    tasks = [
        (item['path'], None)
        if item['start'] is None and item['end'] is None
        else (item['path'], [(item['start'], item['end'])])
        for item in items
    ]
    read: dict[int, tuple[ReadMoments, VideoFeatures]] = {}
    unreadable: dict[str, str] = {}
    for number, found in reader.read_pieces(tasks):
        name = items[number]['path']
        if found.error:
            unreadable[items[number]['video_id']] = found.error
        else:
            features = encoder.encode_frames(
                torch.from_numpy(found.frames[0]), name
            )
            found.frames = []  # pixels are no longer needed
            read[number] = found, features.to('cpu')
    order = sorted(read)
    part = FeatureFile(
        about=dict(
            videos=[dict(items[number]) for number in order],
            unreadable=unreadable,
        )
    )
    if order:
        part.videos = VideoFeatures.cat([read[n][1] for n in order])
        part.frame_times = pad_times(
            [read[n][0].frame_times[0] for n in order],
            part.videos.frames.shape[1],
        )
        with torch.no_grad():
            part.vectors = torch.cat(
                [
                    encoder.head.shortlist_video(
                        read[n][1].to(encoder.device)
                    ).cpu()
                    for n in order
                ]
            )
    return part


def _add_texts(
    joined: FeatureFile,
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    texts: Sequence[Item],
) -> None:
    """Encode the texts, and point them at the videos that were read."""
    places = {
        item['video_id']: place
        for place, item in enumerate(joined.about['videos'])
    }
    joined.about['texts'] = [
        dict(
            text=text['text'],
            video=None
            if text['video'] is None
            else places.get(items[text['video']]['video_id']),
        )
        for text in texts
    ]
    if texts:
        sentences = [text['text'] for text in texts]
        joined.texts = encoder.encode_texts(sentences).to('cpu')
