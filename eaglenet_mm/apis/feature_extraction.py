"""What ``tools/extract_features.py`` does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.feature_items import Item
from eaglenet_mm.apis.feature_parts import make_parts
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.utils.folder_lock import FolderInUseError, take_lock

_LOCK = 'writer.lock'


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
    others is in ``about['notes']``.

    Args:
        encoder (RetrieverEncoder): The model.
        items (Sequence[dict]): Of :func:`list_items`.
        texts (Sequence[dict]): Of :func:`list_items` or :func:`read_texts`.
        out (str | PathLike): The file, ``.safetensors``.
        num_workers (int): Processes that read videos.
        passed_over (Mapping[str, int], optional): Of
            :func:`count_passed_over`, for ``about``. Defaults to None.

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
    with _lock(folder, out):
        joined = FeatureFile.join(
            make_parts(folder, encoder, items, num_workers)
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
