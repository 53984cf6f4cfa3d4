"""Small copies of videos: few frames a second, short side of few pixels."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.utils import ProgressBar

from .compression_stamp import (
    CompressionStamp,
    SourceState,
    remove_partial_files,
    state_of,
    whole_file,
)
from .isolated_workers import run_isolated
from .video_encoding import CopySettings, check_pyav, encode_copy
from .video_readers.base import VideoReadError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class CompressionReport:
    """What became of the files of a folder; names are relative to it.

    Args:
        num_made (int): Copies that this run made.
        num_kept (int): Copies of the same sources that were there already.
        failures (dict[str, str]): Reason for each file without a copy, in
            order of names.
        hidden (list[str]): Hidden files and folders, which were not tried.
    """

    num_made: int = 0
    num_kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)


def compress_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    fps: float | Fraction = 3,
    short_side: int = 224,
    crf: int = 23,
) -> int:
    """Write a small copy of a video: H.264 in mp4, yuv420p, without sound.

    At 0, 1 / fps, 2 / fps, ... seconds the copy shows what the source shows,
    so that seconds of an annotation fit both. The rate is constant, also where
    that of the source varies, and a source of fewer frames a second shows each
    several times, for as long as before. A source that begins late has a copy
    that begins late. There is one frame at least.

    Pictures are turned and mirrored as the first frame of the file asks.
    Pixels that are not square keep their shape, and colours their matrix,
    range, primaries and transfer curve, that of HDR as well; samples have 8
    bits. Pictures are never all in memory.

    Args:
        source (str or PathLike): Any video that FFmpeg reads.
        target (str or PathLike): File to write, whatever its ending; complete
            or not at all. Missing folders are made.
        fps (float or Fraction): Frames a second, at most 240. Defaults to 3.
        short_side (int): Pixels of the shorter side, even. A smaller video
            keeps its size. Both sides are rounded down to even numbers.
            Defaults to 224.
        crf (int): Quality of libx264, from 0 (no loss) to 51. Defaults to 23.

    Returns:
        int: Number of frames of the copy.

    Raises:
        ImportError: If PyAV or its libx264 is missing.
        OSError: If the target cannot be written.
        ValueError: If an option is out of its range.
        VideoReadError: If the source is no video, or not all of it can be
            decoded.
    """
    settings = CopySettings(fps, short_side, crf)
    check_pyav()
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        return encode_copy(os.fspath(source), file, settings)


def compress_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    fps: float | Fraction = 3,
    short_side: int = 224,
    crf: int = 23,
    workers: int = 2,
) -> CompressionReport:
    """Make a small copy of every video of a folder, under the same name.

    Every file in the folder and below is tried, whatever its ending, except
    hidden ones (a dot starts their name or that of a folder), which the
    report lists. Links are followed, except to a folder that they lie in.

    After an interruption, the same call makes what is missing. A copy whose
    source has another size or time of change than before is made again.
    Copies are never removed. Only one run at a time may write to a folder.

    Args:
        source (str or PathLike): Folder of videos.
        target (str or PathLike): Folder of copies: absent, empty or of an
            earlier call with the same options.
        fps (float or Fraction): See :func:`compress_video`. Defaults to 3.
        short_side (int): See :func:`compress_video`. Defaults to 224.
        crf (int): See :func:`compress_video`. Defaults to 23.
        workers (int): Processes, each with one thread. Defaults to 2.

    Returns:
        CompressionReport: A file that fails does not end the run.

    Raises:
        ImportError: If PyAV or its libx264 is missing.
        OSError: If the target cannot be written, such as on a full disk.
        ValueError: If an option or a folder is not as described above.
    """
    settings = CopySettings(fps, short_side, crf)
    if workers < 1:
        raise ValueError(f'workers must be at least 1, but got {workers}.')
    check_pyav()
    source, target = Path(source).resolve(), Path(target).resolve()
    _check_folders(source, target)
    report = CompressionReport()
    try:
        target.mkdir(parents=True, exist_ok=True)
        remove_partial_files(target)
        stamp = CompressionStamp(target, settings)
        files = _list_files(source, target, report)
        todo = {x: s for x, s in files.items() if not stamp.holds(x, s)}
        report.num_kept = len(files) - len(todo)
        if todo:
            _compress(source, todo, stamp, report, workers)
    except OSError as err:
        if err.errno not in _DISK_FULL:
            raise
        raise OSError(
            err.errno,
            f"The disk of '{target}' is full. Free some space and start "
            'again: complete copies are kept, and no others are left',
        ) from err
    report.failures = dict(sorted(report.failures.items()))
    return report


def _check_folders(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise ValueError(
            f"Expected a folder of videos, but '{source}' is none. Correct "
            'the path.'
        )
    if target.exists() and not target.is_dir():
        raise ValueError(
            f"Expected a folder for the copies, but '{target}' is a file. "
            'Name another.'
        )
    inside = source == target or source in target.parents
    if inside or target in source.parents:
        raise ValueError(
            f"The copies must not lie in the folder of videos '{source}', nor "
            f"the videos in theirs, but got '{target}'. Name another folder."
        )


def _list_files(
    source: Path, target: Path, report: CompressionReport
) -> dict[str, SourceState]:
    """List the files to try with their states; report what is no file."""
    files: dict[str, SourceState] = {}

    def identify(folder: Path) -> tuple[int, int]:
        status = folder.stat()
        return status.st_dev, status.st_ino

    def visit(folder: Path, prefix: str, above: frozenset[Any]) -> None:
        try:
            identity = identify(folder)
            names = sorted(os.listdir(folder))
        except OSError as err:
            report.failures[prefix or '.'] = f'cannot be listed ({err}).'
            return
        if identity in above:
            return
        for name in names:
            path = folder / name
            if name.startswith('.'):
                report.hidden.append(prefix + name)
            elif path.is_dir():
                visit(path, f'{prefix}{name}/', above | {identity})
            else:
                files[prefix + name] = state_of(path)

    # a link may also lead to the copies
    visit(source, '', frozenset({identify(target)}))
    return files


def _compress(
    source: Path,
    todo: dict[str, SourceState],
    stamp: CompressionStamp,
    report: CompressionReport,
    workers: int,
) -> None:
    """Make copies, and note each in the stamp and in the report."""
    names = list(todo)
    outcomes = run_isolated(
        partial(_try, source, stamp.folder, stamp.settings),
        names,
        num_workers=workers,
        time_limit=0,
    )
    progress = ProgressBar(len(todo), file=sys.stdout)
    try:
        with closing(outcomes):
            for done in outcomes:
                name, outcome = names[done.index], done.value
                if done.kind != 'done':
                    outcome = _Outcome.of_death(done.detail)
                if outcome.is_disk_full:
                    # all the others would fail as well
                    raise OSError(errno.ENOSPC, outcome.reason)
                if outcome.reason:
                    report.failures[name] = outcome.reason
                else:
                    report.num_made += 1
                    stamp.add(name, todo[name])
                progress.update()
    finally:
        sys.stdout.write('\n')
        remove_partial_files(stamp.folder)
        stamp.save()


@dataclass(frozen=True)
class _Outcome:
    """Why there is no copy; empty if there is one."""

    reason: str = ''
    is_disk_full: bool = False

    @classmethod
    def of_death(cls, detail: str) -> _Outcome:
        return cls(
            f'{detail}. Try again with fewer workers, in case memory was '
            'short; else encode the file again, or leave it out.'
        )


def _try(
    source: Path, target: Path, settings: CopySettings, name: str
) -> _Outcome:
    """Make a copy in a process of its own."""
    path = source / name
    try:
        compress_video(path, target / name, **vars(settings))
    except Exception as err:  # noqa: BLE001  one file must not end the run
        reason = str(err).removeprefix(f'{path}: ') or repr(err)
        if not isinstance(err, VideoReadError | OSError):
            reason = f'{type(err).__name__}: {reason}'
        return _Outcome(reason, getattr(err, 'errno', None) in _DISK_FULL)
    return _Outcome()
