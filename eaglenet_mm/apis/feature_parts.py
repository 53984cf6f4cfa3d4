"""Features of videos in parts, each of which is safe once it is made."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.feature_items import Item
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.structures import VideoFeatures
from eaglenet_mm.utils.progress import Progress

#: Videos after which what is done is safe.
_PART = 256


def make_parts(
    folder: Path,
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    num_workers: int,
) -> list[FeatureFile]:
    """Encode videos in parts, apart from those that are finished.

    Args:
        folder (Path): Where parts are kept.
        encoder (RetrieverEncoder): The model.
        items (Sequence[dict]): The videos.
        num_workers (int): Processes that read them.

    Returns:
        list[FeatureFile]: The parts, in the order of the videos.
    """
    pieces = {
        folder / f'{first:09d}.safetensors': items[first : first + _PART]
        for first in range(0, len(items), _PART)
    }
    kept = {
        path: part
        for path, own in pieces.items()
        if (part := _load_part(path, _identify(encoder, own))) is not None
    }
    if kept:
        print_log(
            f'Going on with {folder}: {len(kept)} of {len(pieces)} parts are '
            'finished.',
            logger='current',
        )
    progress = Progress('videos', len(items))
    parts = []
    for path, own in pieces.items():
        if path not in kept:
            # before it is read: a file may change meanwhile
            made_of = _identify(encoder, own)
            part = _encode(encoder, own, num_workers)
            part.about['made_of'] = made_of
            part.save(path)
            part = FeatureFile.load(path)  # leaves its tensors on the disk
        else:
            part = kept[path]
        del part.about['made_of']
        parts.append(part)
        progress.update(len(own))
    progress.close()
    return parts


def _identify(encoder: RetrieverEncoder, items: Sequence[Item]) -> str:
    """Hash what a part is made of: the model, and files as they are now."""
    made_of = [
        encoder.identity.fingerprint,
        [[item, identify(item['path'])] for item in items],
    ]
    text = json.dumps(made_of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _load_part(path: Path, made_of: str) -> FeatureFile | None:
    """Read a part, unless it is damaged or of something else."""
    if not path.exists():
        return None
    try:
        part = FeatureFile.load(path)
    except ValueError as err:
        print_log(
            f'{path} is damaged; its videos are encoded again ({err}).',
            logger='current',
            level=logging.WARNING,
        )
        return None
    return part if part.about.get('made_of') == made_of else None


def _encode(
    encoder: RetrieverEncoder, items: Sequence[Item], num_workers: int
) -> FeatureFile:
    """Encode some videos."""
    reader = MomentReader(encoder.pipeline, num_workers=num_workers)
    tasks = [
        (item['path'], None)
        if item['start'] is None and item['end'] is None
        else (item['path'], (item['start'], item['end']))
        for item in items
    ]
    read: dict[int, tuple[ReadMoments, VideoFeatures]] = {}
    unreadable: dict[str, str] = {}
    notes: dict[str, str] = {}
    for number, found in reader.read_pieces(tasks):
        name = items[number]['path']
        if not found.frames:
            unreadable[items[number]['video_id']] = found.error
        else:
            if found.error:
                notes[items[number]['video_id']] = found.error
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
            notes=notes,
        )
    )
    if order:
        part.videos = VideoFeatures.cat([read[n][1] for n in order])
        part.frame_times = encoder.pad_times(
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
