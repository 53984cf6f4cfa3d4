"""Files that are complete or absent, and the record of which are there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .video_encoding import CopySettings

#: File in the folder of copies that tells which of them are complete.
STAMP_NAME = '.compression.json'
#: Size in bytes and time of change in ns of a source; None if it has none.
SourceState = list[int] | None
# What files end with while they are written. Their short names of their own
# fit also where the name of the video is as long as a name may be.
_PARTIAL_SUFFIX = '.compressing'
# A killed run makes the copies of this time again. Writing the stamp of
# 100 000 videos takes 0.3 s.
_SECONDS_BETWEEN_SAVES = 5.0


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is complete.

    Args:
        target (Path): File to write or to replace, in a folder that exists.

    Yields:
        BinaryIO: The hidden file beside it, which is removed on an error.
    """
    partial = target.parent / f'.{uuid4().hex}{_PARTIAL_SUFFIX}'
    try:
        with open(partial, 'xb') as file:
            yield file
            file.flush()
            # or a power failure may leave an empty file of the new name
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left in a folder and below."""
    for path, _, names in os.walk(folder):
        for name in names:
            if name.startswith('.') and name.endswith(_PARTIAL_SUFFIX):
                Path(path, name).unlink(missing_ok=True)


def state_of(source: Path) -> SourceState:
    """Tell the state of a source, by which a change of it is noticed."""
    try:
        status = source.stat()
    except OSError:  # a link to nowhere, or a file that is gone by now
        return None
    return [status.st_size, status.st_mtime_ns]


class CompressionStamp:
    """The record of the complete copies of a folder, in a file of it.

    Args:
        folder (Path): Folder of copies, which exists.
        settings (CopySettings): How the copies are to look.

    Raises:
        ValueError: If the folder holds other files, or copies of other
            settings.
    """

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
            state is not None
            and self._copies.get(name) == state
            and (self.folder / name).is_file()
        )

    def add(self, name: str, state: SourceState) -> None:
        """Note a copy, and save every few seconds."""
        self._copies[name] = state
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Write the file, all or nothing."""
        settings = {**vars(self.settings), 'fps': str(self.settings.fps)}
        content = {'settings': settings, 'copies': self._copies}
        with whole_file(self.folder / STAMP_NAME) as file:
            file.write(json.dumps(content).encode() + b'\n')
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
                f"{path}: expected the record of an earlier run, but '{err}' "
                'stopped reading it. Name another folder, or remove this one.'
            ) from err
        if earlier != self.settings:
            raise ValueError(
                f"'{self.folder}' holds copies of {earlier}, but asked for "
                f'are copies of {self.settings}. Give the same options, name '
                'another folder, or remove this one.'
            )
