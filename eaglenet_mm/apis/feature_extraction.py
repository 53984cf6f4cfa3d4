"""What ``tools/extract_features.py`` does: features into one file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.structures import VideoFeatures
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock
from eaglenet_mm.utils.progress import Progress

Item = dict[str, Any]

_LOCK = 'writer.lock'
#: Videos after which what is done is safe.
_PART = 256


def list_items(
    source: str, videos: str | None = None
) -> tuple[list[Item], list[Item]]:
    """List the videos and texts of a folder or annotation file.

    Videos are dicts of ``video_id``, ``path``, ``start`` and ``end``; texts
    of ``text`` and ``video``, the place of its video, None without one. A
    folder has no texts; ``videos`` is where those of a file lie, its own
    folder by default.
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
    """Count the files of a folder that are not looked at, by ending."""
    return {} if source.endswith('.json') else find_videos(source).passed_over


def read_texts(path: str | os.PathLike) -> list[Item]:
    """Read further texts, one a line; blank lines are left out."""
    try:
        lines = Path(path).read_text('utf-8-sig').splitlines()
    except UnicodeDecodeError as err:
        raise ValueError(
            f'{path} is no text in UTF-8 ({err.reason} at byte {err.start}). '
            'Save it again in UTF-8.'
        ) from err
    return [dict(text=line, video=None) for line in lines if line.strip()]


def extract_features(
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    texts: Sequence[Item],
    out: str | os.PathLike,
    *,
    num_workers: int = 2,
    passed_over: Mapping[str, int] | None = None,
) -> FeatureFile:
    """Encode videos and texts into one file.

    What is finished is kept beside the file until all is, so that the same
    call goes on after an interruption; where a video has changed since, or
    what is kept is damaged, it is encoded again. Videos that cannot be read
    are left out and listed in ``about['unreadable']``; what is odd about
    others is in ``about['notes']``. Texts are checked before any video is
    read.
    """
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(
            f'{out} is a folder. Give the name of a file for the features.'
        )
    _check_texts(encoder, texts)
    folder = out.with_name(f'.{out.name}.parts')
    with _lock(folder, out):
        joined = FeatureFile.join(
            _make_parts(folder, encoder, items, num_workers)
        )
        if joined.videos is None:
            _remove(folder)  # or nothing would be tried the next time
            raise ValueError(
                f'None of {len(items)} videos could be read; the first: '
                f'{next(iter(joined.about["unreadable"].items()))}.'
            )
        joined.about['passed_over'] = dict(passed_over or {})
        joined.about['model'] = dict(
            fingerprint=encoder.identity.fingerprint,
            checkpoint=encoder.identity.checkpoint,
            untrained=encoder.identity.untrained,
        )
        _add_texts(joined, encoder, items, texts)
        joined.save(out)
        _remove(folder)
    return joined


def _check_texts(encoder: RetrieverEncoder, texts: Sequence[Item]) -> None:
    """Refuse texts that could not be encoded, before hours of videos."""
    sentences = [text['text'] for text in texts]
    empty = [n for n, sentence in enumerate(sentences) if not sentence.strip()]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(texts)} texts are empty, so they describe '
            f'nothing: those numbered {empty[:5]}, from 0. Leave them out.'
        )
    if sentences:
        encoder.tokenizer.transform({'captions': sentences})


def _lock(folder: Path, out: Path) -> contextlib.ExitStack:
    """Make the folder of what is finished, and keep a second run out."""
    try:
        return take_lock(folder / _LOCK)
    except FolderInUseError as err:
        raise RuntimeError(
            f'{err.writer} is writing {out}. Wait for it, or give another '
            'file.'
        ) from err


def _remove(folder: Path) -> None:
    """Delete what was finished; the lock last, as another may take it."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()
    (folder / _LOCK).unlink()
    with contextlib.suppress(OSError):  # another run has begun in it
        folder.rmdir()


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


def _make_parts(
    folder: Path,
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    num_workers: int,
) -> list[FeatureFile]:
    """Encode videos in parts, apart from those that are finished."""
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


@torch.no_grad()
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
        item = items[number]
        if not found.frames:
            unreadable[item['video_id']] = found.error
            continue
        if found.error:
            notes[item['video_id']] = found.error
        frames = torch.from_numpy(found.frames[0])
        found.frames = []  # pixels are no longer needed
        features = encoder.encode_frames(frames, item['path'])
        read[number] = found, features.to('cpu')
    order = sorted(read)
    about = dict(
        videos=[dict(items[number]) for number in order],
        unreadable=unreadable,
        notes=notes,
    )
    if not order:
        return FeatureFile(about=about)
    videos = [read[number][1] for number in order]
    shortlist_video = encoder.head.shortlist_video
    vectors = [shortlist_video(x.to(encoder.device)).cpu() for x in videos]
    joined = VideoFeatures.cat(videos)
    times = [read[number][0].frame_times[0] for number in order]
    return FeatureFile(
        videos=joined,
        vectors=torch.cat(vectors),
        frame_times=encoder.pad_times(times, joined.frames.shape[1]),
        about=about,
    )
