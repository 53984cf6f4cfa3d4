"""What ``tools/index.py`` does: make an index, or bring it up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eaglenet_mm.apis.retrieval_inferencer import RetrievalInferencer
from eaglenet_mm.apis.video_indexer import IndexingReport, VideoIndexer
from eaglenet_mm.apis.watching import watch_videos
from eaglenet_mm.config.knobs import walk
from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.evidence import words_of
from eaglenet_mm.search.video_files import (
    FoundVideos,
    find_videos,
    tell_passed_over,
)
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.printable import printable


def update_index(
    videos: Sequence[str],
    where: str | os.PathLike,
    *,
    model: str | os.PathLike | Config | None = None,
    weights: str | None = None,
    segment: float | None = None,
    precision: str | None = None,
    prune: bool = False,
    repair: bool = False,
    tags: Sequence[str] = (),
    retry: bool = False,
    indexer: Callable[..., Any] = VideoIndexer,
    untrained: bool = False,
    **settings: Any,
) -> tuple[RetrievalInferencer, IndexingReport]:
    """Make an index of videos, or bring one up to date.

    A new one needs ``model`` and ``weights``; else they, ``segment`` and
    ``precision`` are those of the index. ``tags`` are given to these videos
    besides those they have; for ``retry``, ``prune`` and ``repair`` see
    ``tools/index.py``, for the rest :class:`RetrievalInferencer`.

    The inferencer that comes back has the index, open for writing. After a
    ``FileNotFoundError`` or ``ValueError`` nothing has changed.
    """
    if untrained:
        settings['untrained'] = True
    with ExitStack() as on_error:
        try:
            index = VideoIndex.load(where, writable=True, repair=repair)
        except FileNotFoundError:
            found = find_videos(videos)
            if model is None:
                raise ValueError(
                    f'{where} is no index yet. A new one needs the config of '
                    'the model (--config), and its weights (--checkpoint).'
                ) from None
            inferencer = RetrievalInferencer(model, weights, **settings)
            words = _training_words(inferencer.encoder.cfg)
            index = inferencer.new_index(
                where, segment=segment or 0.0, precision=precision or 'float32'
            )
            on_error.callback(index.close)
            index.set_about('words', words)
        else:
            on_error.callback(index.close)
            found = _find(videos, may_be_empty=prune)
            _check_settings(index, segment, precision)
            inferencer = RetrievalInferencer.of_index(
                index, weights, model=model, **settings
            )
        inferencer.use(index)
        options: dict[str, Any] = dict(
            tags=tags, prune=prune, retry=retry, indexer=indexer
        )
        report = _take_up(inferencer, found.paths, videos, **options)
        report.passed_over = found.passed_over
        on_error.pop_all()
    return inferencer, report


def follow_videos(
    inferencer: RetrievalInferencer,
    videos: Sequence[str],
    *,
    tags: Sequence[str] = (),
    prune: bool = False,
    poll: bool = False,
    stop: Any = None,
) -> Iterator[IndexingReport]:
    """Keep an index up to date while files change, until Ctrl-C.

    The index is that of the inferencer; ``tags`` and ``prune`` are as for
    :func:`update_index`, ``poll`` and ``stop`` as for
    :func:`~eaglenet_mm.apis.watching.watch_videos`. Yields a report after
    each change of the index.
    """
    for changed in watch_videos(videos, poll=poll, stop=stop):
        paths = changed or _find(videos, may_be_empty=True).paths
        there = [path for path in paths if os.path.isfile(path)]
        report = _take_up(
            inferencer, there, changed or videos, tags=tags, prune=prune
        )
        if report.added or report.updated or report.gone:
            yield report


def _take_up(
    inferencer: RetrievalInferencer,
    paths: Sequence[str],
    roots: Sequence[str],
    *,
    tags: Sequence[str],
    prune: bool,
    **options: Any,
) -> IndexingReport:
    """Index files, give them tags, and see what is gone below roots."""
    index = inferencer.index
    assert index is not None
    index.refresh()
    report = inferencer.update(index, paths, **options)
    below = tuple(os.path.join(os.path.abspath(root), '') for root in roots)
    gone = [p for p in report.gone if os.path.join(p, '').startswith(below)]
    report.gone = gone
    if prune:
        index.remove(gone)
    by_tags: dict[tuple[str, ...], list[str]] = {}
    for path in paths if tags else ():
        old = index.files[path].tags
        new = tuple(dict.fromkeys([*old, *tags]))
        if new != old:
            by_tags.setdefault(new, []).append(path)
    for new, some in by_tags.items():
        index.set_tags(some, new)
    return report


def _training_words(cfg: Config) -> list[str]:
    """List the words of the training captions, as far as they are here."""
    words: set[str] = set()
    for _, settings in walk(cfg.get('train_dataloader', {})):
        if not isinstance(settings, dict) or 'ann_file' not in settings:
            continue
        # gone, of another kind or damaged: indexing does without
        with suppress(ValueError, KeyError, TypeError, OSError):
            root = settings.get('data_root') or ''
            path = os.path.join(root, settings['ann_file'])
            for record in read_annotation(path)[1]:
                for caption in record['captions']:
                    words.update(words_of(caption))
    return sorted(words)


def _find(videos: Sequence[str], may_be_empty: bool) -> FoundVideos:
    """List the files, before minutes of loading a model."""
    try:
        return find_videos(videos)
    except ValueError:
        if may_be_empty:  # all of them were deleted
            return FoundVideos([])
        raise


def _check_settings(
    index: VideoIndex, segment: float | None, precision: str | None
) -> None:
    for name, wanted in dict(segment=segment, precision=precision).items():
        kept = getattr(index, name)
        if wanted is not None and wanted != kept:
            raise VideoIndexError(
                f'The index {index.where} was made with --{name} {kept}, '
                f'not {wanted}. Leave the option out, or make another index.'
            )


def read_captions(source: str | os.PathLike, index: VideoIndex) -> list[str]:
    """Read captions of videos in an index, to calibrate it with.

    From a text file with one a line; or from an annotation file, of which
    those videos count whose file names are in the index.
    """
    source = os.fspath(source)
    if source.endswith('.json'):
        names = {os.path.basename(path) for path in index.files}
        captions = [
            caption
            for record in read_annotation(source)[1]
            if os.path.basename(record['video']) in names
            for caption in record['captions']
        ]
    else:
        captions = read_lines(source)
    if not captions:
        raise ValueError(
            f'{source} has no captions of videos in {index.where}. Give a '
            'text file with one caption a line.'
        )
    return captions


def read_lines(path: str | os.PathLike) -> list[str]:
    """Read the lines of a text file that are not blank."""
    try:
        lines = Path(path).read_text('utf-8-sig').splitlines()
    except UnicodeDecodeError as err:
        raise ValueError(
            f'{path} is no text in UTF-8 ({err.reason} at byte {err.start}). '
            'Save it again in UTF-8.'
        ) from err
    return [line for line in lines if line.strip()]


def report_lines(
    index: VideoIndex, report: IndexingReport, prune: bool
) -> Iterator[str]:
    """Say in words what became of the files."""
    yield (
        f'{len(report.added)} new, {len(report.updated)} changed, '
        f'{report.unchanged} unchanged files'
    )
    if report.unreadable:
        yield f'{len(report.unreadable)} could not be read, wholly or in part:'
        for path, error in sorted(report.unreadable.items()):
            yield printable(f'  {path}: {error}')
        yield '  (--retry tries those that have not changed again)'
    if report.passed_over:
        yield tell_passed_over(report.passed_over)
    if report.gone:
        what = 'were taken out' if prune else 'are kept (--prune removes them)'
        yield f'{len(report.gone)} files no longer exist and {what}:'
        yield from (printable(f'  {path}') for path in report.gone[:10])
        if len(report.gone) > 10:
            yield f'  and {len(report.gone) - 10} more'
    kind = 'segments' if index.segment else 'videos'
    yield f'{index.where}: {len(index)} {kind} can be searched'
