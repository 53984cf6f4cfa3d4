"""Features of texts and videos in one file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.apis.video_indexer import VideoIndexer
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.moment_reading import Piece
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.durable_file import replace_durably
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock

Item = dict[str, Any]

_KIND = dict(format='eaglenet_mm features', version='1')
_DAMAGE = (
    *(SafetensorError, OSError, RuntimeError),
    *(KeyError, TypeError, ValueError),
)
_BLOCK = 256  # rows that are read together


@dataclass
class FeatureFile:
    """Features of texts and videos, and what they are of.

    Example:
        >>> FeatureFile(videos=video).save('features.safetensors')
        >>> FeatureFile.load('features.safetensors').videos.frames.shape
        torch.Size([4, 8, 32])
    """

    #: As the encoder returns them, ``Bv`` rows.
    videos: VideoFeatures | None = None
    #: Of the first stage of a search, unit length, shape ``(Bv, C)``.
    vectors: Tensor | None = None
    #: Seconds, NaN where padded, shape ``(Bv, F)``.
    frame_times: Tensor | None = None
    #: As the encoder returns them, ``Bt`` rows.
    texts: TextFeatures | None = None
    #: ``videos`` (for each row ``video_id``, ``path``, ``start``, ``end``),
    #: ``texts`` (for each row ``text`` and, for captions, ``video``, the place
    #: of its video or None), ``unreadable`` (path to reason), ``notes`` (id
    #: of a video to what is odd about it), ``passed_over`` (files not looked
    #: at, by ending) and ``model``.
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        named = {'video.vectors': self.vectors}
        named['video.frame_times'] = self.frame_times
        for side, features in (('video', self.videos), ('text', self.texts)):
            if features is not None:
                for name, tensor in vars(features).items():
                    named[f'{side}.{name}'] = tensor
        tensors = {
            name: tensor.cpu().contiguous()
            for name, tensor in named.items()
            if tensor is not None
        }
        about = {**_KIND, 'about': json.dumps(self.about)}
        try:
            with replace_durably(Path(path)) as part:
                save_file(tensors, part, about)
        except (OSError, SafetensorError) as err:
            raise OSError(
                f'{path} could not be written: {err}. Make room, or check '
                'the folder and its permissions.'
            ) from err

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureFile:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is none.
            OSError: If it cannot be read.
            ValueError: If it is damaged, or something else.
        """
        again = 'Make it with tools/extract_features.py.'
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'Features were expected at {path}, but there is no file. '
                f'{again}'
            )
        sides: dict[str, dict[str, Tensor]] = {'video': {}, 'text': {}}
        is_ours = True
        try:
            with safe_open(path, 'pt') as file:
                about = file.metadata() or {}
                is_ours = about.items() >= _KIND.items()
                if not is_ours:
                    raise ValueError(
                        f'{path} is no file of features of version '
                        f'{_KIND["version"]}, but {about.get("format")} of '
                        f'version {about.get("version")}. {again}'
                    )
                for name in file.keys():  # noqa: SIM118 - no dict
                    side, _, rest = name.partition('.')
                    sides[side][rest] = file.get_tensor(name)
            video, text = sides['video'], sides['text']
            return cls(
                vectors=video.pop('vectors', None),
                frame_times=video.pop('frame_times', None),
                videos=VideoFeatures(**video) if video else None,
                texts=TextFeatures(**text) if text else None,
                about=dict(json.loads(about['about'])),
            )
        except _DAMAGE as err:
            no_permission = isinstance(err, OSError) and err.errno is not None
            if no_permission or not is_ours:
                raise
            raise ValueError(f'{path} is damaged ({err!r}). {again}') from err

    @classmethod
    def of_index(
        cls, index: VideoIndex, items: Sequence[Item], texts: Sequence[Item]
    ) -> FeatureFile:
        """Take the rows of videos out of an index."""
        read: dict[int | None, int] = {}
        rows: list[Tensor] = []
        about: dict[str, Any] = dict(videos=[], unreadable={}, notes={})
        for place, item in enumerate(items):
            file = index.files[_name(item)]
            ids = index.store.ids_of(file.path)
            if file.error:
                kind = 'notes' if len(ids) else 'unreadable'
                about[kind][item['video_id']] = file.error
            if len(ids):
                read[place] = len(rows)
                rows.append(ids)
                about['videos'].append(dict(item))
        if not rows:
            raise NoVideoError(
                f'None of {len(items)} videos could be read; the first: '
                f'{next(iter(about["unreadable"].items()), "there is none")}.'
            )
        about['texts'] = [
            dict(text=text['text'], video=read.get(text['video']))
            for text in texts
        ]
        about['model'] = {
            name: getattr(index.model, name)
            for name in ('fingerprint', 'checkpoint', 'untrained')
        }
        blocks = torch.cat(rows).split(_BLOCK)
        features, _, times = zip(*map(index.read, blocks), strict=True)
        videos = [VideoFeatures(**own) for own in features]
        vectors = torch.cat([index.vectors(ids) for ids in blocks])
        return cls(
            VideoFeatures.cat(videos), vectors, torch.cat(times), None, about
        )


class NoVideoError(ValueError):
    """None of the videos could be read."""


def list_items(
    source: str, videos: str | None = None
) -> tuple[list[Item], list[Item]]:
    """List the videos and texts of a folder or annotation file (``.json``).

    Videos have ``video_id``, ``path``, ``start`` and ``end``; texts ``text``
    and ``video``, the place of its video, None without one. The videos of a
    file lie in ``videos``, by default its own folder.
    """
    items: list[Item] = []
    texts: list[Item] = []
    if not source.endswith('.json'):
        for path in find_videos(source).paths:
            items.append(dict(video_id=path, path=path, start=None, end=None))
        return items, texts
    header, records = read_annotation(source)
    folder = videos if videos is not None else os.path.dirname(source)
    for place, record in enumerate(records):
        path = os.path.abspath(os.path.join(folder, record['video']))
        span = dict(start=record.get('start'), end=record.get('end'))
        items.append(dict(video_id=record['video_id'], path=path, **span))
        texts += [dict(text=x, video=place) for x in record['captions']]
    for query in header.get('queries', []):
        texts.append(dict(text=query['caption'], video=None))
    return items, texts


def extract_features(
    encoder: RetrieverEncoder,
    items: Sequence[Item],
    texts: Sequence[Item],
    out: str | os.PathLike,
    *,
    num_workers: int = 2,
    passed_over: Mapping[str, int] | None = None,
) -> FeatureFile:
    """Encode videos and texts, see :func:`list_items`, into one file.

    Videos are encoded into an index beside it, ``.NAME.index``, which is
    deleted at the end: the same call goes on after an interruption. Videos
    that cannot be read are left out and listed in ``about['unreadable']``;
    what is odd about others is in ``about['notes']``. Texts are checked
    before any video is read. Gives what was written.

    Raises:
        ValueError: If a text is empty, or no video could be read.
        RuntimeError: If another process is writing the file.
    """
    out = Path(out)
    if out.is_dir():
        raise IsADirectoryError(
            f'{out} is a folder. Give the name of a file for the features.'
        )
    sentences = [text['text'] for text in texts]
    empty = [n for n, sentence in enumerate(sentences) if not sentence.strip()]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(texts)} texts are empty, so they describe '
            f'nothing: those numbered {empty[:5]}, from 0. Leave them out.'
        )
    encoded = encoder.encode_texts(sentences).to('cpu') if texts else None
    beside = out.with_name(f'.{out.name}.index')
    lock_file = out.with_name(f'.{out.name}.lock')
    try:
        lock = take_lock(lock_file)
    except FolderInUseError as err:
        raise RuntimeError(
            f'{err.writer} is writing {out}. Wait for it, or give another '
            'file.'
        ) from err
    with lock:
        kept_before, encoder.keeps_patches = encoder.keeps_patches, True
        try:
            with _beside(beside, encoder) as index:
                if index.files:
                    print_log(
                        f'Going on: {len(index.files)} of {len(items)} videos '
                        'are there.',
                        logger='current',
                    )
                pieces = {_name(item): _piece(item) for item in items}
                indexer = VideoIndexer(encoder, num_workers)
                indexer.update(index, pieces, retry=True)
                found = FeatureFile.of_index(index, items, texts)
            found.texts = encoded
            found.about['passed_over'] = dict(passed_over or {})
            found.save(out)
            beside.unlink()
        except NoVideoError:  # of no use to a further run
            beside.unlink()
            raise
        finally:
            encoder.keeps_patches = kept_before
            lock_file.unlink()
    return found


def _beside(where: Path, encoder: RetrieverEncoder) -> VideoIndex:
    """Go on with the index of a run that was stopped, or make one."""
    if where.exists():
        try:
            index = VideoIndex.load(where, writable=True, repair=True)
            if index.model == encoder.identity:
                return index
            index.close()
        except (VideoIndexError, FileNotFoundError) as err:
            print_log(
                f'{where} is of no use and made again: {err}',
                logger='current',
                level=logging.WARNING,
            )
        where.unlink()
    return VideoIndex.create(where, encoder.identity, encoder.example_rows())


def _piece(item: Item) -> Piece:
    span = item['start'], item['end']
    return item['path'], None if span == (None, None) else span


def _name(item: Item) -> str:
    """Name a row: several may be of one file, or of one piece of it."""
    path, span = _piece(item)
    if span is None and item['video_id'] == path:
        return path
    start, end = span or (None, None)
    return f'{path}#{item["video_id"]}&t={start},{end}'
