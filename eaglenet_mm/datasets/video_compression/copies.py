"""Small copies of single videos and of whole folders."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from eaglenet_mm.datasets.isolated_workers import run_isolated
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.datasets.video_compression.encoding import (
    CopySettings,
    check_pyav,
    encode_copy,
)
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.utils.durable_file import (
    PARTIAL_NAME,
    replace_durably,
    write_text_durably,
)
from eaglenet_mm.utils.progress import Progress

#: Record of the complete copies, in their folder.
STAMP_NAME = '.compression.json'
#: Size in bytes and modification time in ns of a source; -1 if unreadable.
SourceState = list[int]
# A killed run repeats the copies since the last save. Saving a record of
# 100 000 videos takes 0.3 s.
_SECONDS_BETWEEN_SAVES = 5.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class CompressionReport:
    """Result of compressing a folder; names are relative to it.

    Args:
        num_made (int): Number of copies made by this run.
        num_kept (int): Number of up-to-date copies that already existed.
        failures (dict[str, str]): Reason for each file without a copy, sorted
            by name.
        hidden (list[str]): Hidden files and folders, which were skipped.
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
    """Write a small copy of a video: H.264 MP4, yuv420p, without sound.

    At 0, 1 / fps, 2 / fps, ... seconds the copy shows the same as the source,
    so annotated times hold for both. The frame rate is constant even if that
    of the source varies; a source with a lower rate has its frames repeated.
    If the source starts late, so does the copy. There is at least one frame.

    Rotation and mirroring of the source are applied. The pixel aspect ratio is
    kept, and so are colour matrix, range, primaries and transfer function,
    including HDR; samples have 8 bits. Memory use does not grow with length.

    Args:
        source (str or PathLike): Any video that FFmpeg reads.
        target (str or PathLike): Output file with any suffix, written
            atomically. Missing folders are created.
        fps (float or Fraction): Frames per second, at most 240. Default: 3.
        short_side (int): Shorter side in pixels, even; smaller videos keep
            their size. Both sides are rounded down to even numbers. Default:
            224.
        crf (int): Quality of libx264, from 0 (lossless) to 51. Default: 23.

    Returns:
        int: Number of frames of the copy.

    Raises:
        ImportError: If PyAV or its libx264 is missing.
        OSError: If the target cannot be written.
        ValueError: If an option is out of range.
        VideoReadError: If the source is not a video or not fully decodable.
    """
    settings = CopySettings(fps, short_side, crf)
    check_pyav()
    with replace_durably(Path(target)) as part:
        return encode_copy(os.fspath(source), str(part), settings)


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

    Every file in the folder and its subfolders is tried, whatever its suffix,
    except hidden ones (or in hidden folders), which the report lists. Links
    are followed, except to folders that contain them.

    After an interruption, the same call makes the missing copies. Copies whose
    source has changed in size or modification time are made again. Copies are
    never removed. Only one run at a time may write to a folder.

    Args:
        source (str or PathLike): Folder of videos.
        target (str or PathLike): Folder of copies: absent, empty or from an
            earlier call with the same options.
        fps (float or Fraction): See :func:`compress_video`. Default: 3.
        short_side (int): See :func:`compress_video`. Default: 224.
        crf (int): See :func:`compress_video`. Default: 23.
        workers (int): Number of single-threaded processes. Default: 2.

    Returns:
        CompressionReport: The result; failing files do not end the run.

    Raises:
        ImportError: If PyAV or its libx264 is missing.
        OSError: If the target cannot be written, for example because the disk
            is full.
        ValueError: If an option or a folder is invalid.
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
        _remove_partial_files(target)
        stamp = _Stamp(target, settings)
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
            f"Expected a folder of videos, but '{source}' is not a folder. "
            'Correct the path.'
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
    """List the files to try, with their states; report unlistable folders."""
    files: dict[str, SourceState] = {}

    def inode_of(folder: Path) -> tuple[int, int]:
        status = folder.stat()
        return status.st_dev, status.st_ino

    def visit(folder: Path, prefix: str, above: frozenset[Any]) -> None:
        try:
            inode = inode_of(folder)
            names = sorted(os.listdir(folder))
        except OSError as err:
            report.failures[prefix or '.'] = f'cannot be listed ({err}).'
            return
        if inode in above:
            return
        for name in names:
            path = folder / name
            if name.startswith('.'):
                report.hidden.append(prefix + name)
            elif path.is_dir():
                visit(path, f'{prefix}{name}/', above | {inode})
            else:
                files[prefix + name] = list(identify(str(path)))

    # links may also lead to the copies
    visit(source, '', frozenset({inode_of(target)}))
    return files


def _compress(
    source: Path,
    todo: dict[str, SourceState],
    stamp: _Stamp,
    report: CompressionReport,
    workers: int,
) -> None:
    """Make copies, and record each in the stamp and in the report."""
    names = list(todo)
    outcomes = run_isolated(
        partial(_try, source, stamp.folder, stamp.settings),
        names,
        num_workers=workers,
        time_limit=0,
    )
    progress = Progress('videos', len(todo))
    try:
        with closing(outcomes):
            for done in outcomes:
                name = names[done.index]
                reason, is_disk_full = done.value or (
                    f'{done.detail}. Try again with fewer workers, in case '
                    'memory was short; else encode the file again, or leave '
                    'it out.',
                    False,
                )
                if is_disk_full:  # all others would fail as well
                    raise OSError(errno.ENOSPC, reason)
                if reason:
                    report.failures[name] = reason
                else:
                    report.num_made += 1
                    stamp.add(name, todo[name])
                progress.update(1)
        progress.close()
    finally:
        _remove_partial_files(stamp.folder)
        stamp.save()


def _try(
    source: Path, target: Path, settings: CopySettings, name: str
) -> tuple[str, bool]:
    """Make a copy in a worker; return the error and if the disk is full."""
    path = source / name
    try:
        compress_video(path, target / name, **vars(settings))
    except Exception as err:  # noqa: BLE001  one file must not end the run
        reason = str(err).removeprefix(f'{path}: ') or repr(err)
        if not isinstance(err, VideoReadError | OSError):
            reason = f'{type(err).__name__}: {reason}'
        return reason, getattr(err, 'errno', None) in _DISK_FULL
    return '', False


def _remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left in a folder and its subfolders."""
    for path, _, names in os.walk(folder):
        for name in names:
            if PARTIAL_NAME.fullmatch(name):
                Path(path, name).unlink(missing_ok=True)


class _Stamp:
    """Record of the complete copies of a folder, saved in that folder."""

    def __init__(self, folder: Path, settings: CopySettings) -> None:
        self.folder, self.settings = folder, settings
        self._copies: dict[str, SourceState] = {}
        self._saved = time.monotonic()
        if (folder / STAMP_NAME).exists():
            self._read()
        elif any(folder.iterdir()):
            raise ValueError(
                f"Expected '{folder}' to be absent, empty or of an earlier "
                f"run, but it holds files and no '{STAMP_NAME}'. Name another "
                'folder, or remove this one yourself.'
            )
        else:
            self.save()

    def holds(self, name: str, state: SourceState) -> bool:
        """Whether there is a copy of a source in this state."""
        return (
            state[0] >= 0
            and self._copies.get(name) == state
            and (self.folder / name).is_file()
        )

    def add(self, name: str, state: SourceState) -> None:
        """Record a copy, and save every few seconds."""
        self._copies[name] = state
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        settings = {**vars(self.settings), 'fps': str(self.settings.fps)}
        content = {'settings': settings, 'copies': self._copies}
        write_text_durably(
            self.folder / STAMP_NAME, json.dumps(content) + '\n'
        )
        self._saved = time.monotonic()

    def _read(self) -> None:
        path = self.folder / STAMP_NAME
        try:
            content = json.loads(path.read_bytes())
            found = content['settings']
            earlier = CopySettings(**{**found, 'fps': Fraction(found['fps'])})
            self._copies = dict(content['copies'])
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as err:
            raise ValueError(
                f'{path}: expected the record of an earlier run, but reading '
                f"stopped with '{err}'. Name another folder, or remove this "
                'one.'
            ) from err
        if earlier != self.settings:
            raise ValueError(
                f"'{self.folder}' contains copies of {earlier}, but asked for "
                f'are copies of {self.settings}. Use the same options, name '
                'another folder, or remove this one.'
            )
