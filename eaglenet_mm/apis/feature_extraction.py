"""What ``tools/extract_features.py`` does."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.logging import print_log

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoments
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.structures import VideoFeatures
from eaglenet_mm.utils.progress import Progress

#: Videos after which what is done is safe.
_PART = 256
_LOCK = 'writer.lock'
_ATTEMPTS = 10
_LOCKS: weakref.WeakSet[IO[str]] = weakref.WeakSet()

Item = dict[str, Any]


def _let_go() -> None:
    """Close the locks in a process that was forked.

    A lock ends with the last copy of its file: a worker that outlives a
    killed run, if only for a moment, would keep it.
    """
    for lock in list(_LOCKS):
        lock.close()


os.register_at_fork(after_in_child=_let_go)


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
    call goes on after an interruption; where a video has changed since, or
    what is kept is damaged, it is encoded again. Videos that cannot be read
    are left out and listed in ``about['unreadable']``.

    Args:
        encoder (RetrieverEncoder): The model.
        items (Sequence[dict]): Of :func:`list_items`.
        texts (Sequence[dict]): Of :func:`list_items` or :func:`read_texts`.
        out (str | PathLike): The file, ``.safetensors``.
        num_workers (int): Processes that read videos.

    Returns:
        FeatureFile: What was written.

    Raises:
        OSError: If it cannot be written.
        ValueError, KeyError: If a text is empty or the tokenizer refuses it
            (before any video is read), or nothing could be read.
        RuntimeError: If another process is writing the same file.
    """
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(
            f'{out} is a folder. Give the name of a file for the features.'
        )
    _check_texts(encoder, texts)
    folder = out.with_name(f'.{out.name}.parts')
    with _take_lock(folder, out):
        joined = FeatureFile.join(
            _make_parts(folder, encoder, items, num_workers)
        )
        if joined.videos is None:
            _remove(folder)  # or nothing would be tried the next time
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


def _take_lock(folder: Path, out: Path) -> IO[str]:
    """Make the folder of what is finished, and keep a second run out."""
    path = folder / _LOCK
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(path.open('a', encoding='utf-8'))
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(path.stat(), os.fstat(handle.fileno()))
            except FileNotFoundError:
                continue
            except BlockingIOError as err:
                raise RuntimeError(
                    f'Another process is writing {out}. Wait for it, or give '
                    'another file.'
                ) from err
            if mine:  # else another run has ended and taken its folder away
                stack.pop_all()
                _LOCKS.add(handle)
                return handle
    raise RuntimeError(
        f'{folder} cannot be locked: it vanishes again and again. Wait for '
        f'other processes that write {out}, or give another file.'
    )


def _remove(folder: Path) -> None:
    """Delete what was finished; the lock last, as another may take it."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()
    (folder / _LOCK).unlink()
    with contextlib.suppress(OSError):  # another run has begun in it
        folder.rmdir()


def _make_parts(
    folder: Path,
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    num_workers: int,
) -> list[FeatureFile]:
    """Encode the videos, apart from what is finished."""
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
