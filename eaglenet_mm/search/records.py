"""What an index knows of a file, and of a part of it that can be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError


@dataclass(frozen=True)
class IndexedFile:
    """A video file that was indexed, or that could not be read.

    Args:
        path (str): Absolute path.
        size (int): Bytes when it was read, to know it again.
        changed (int): Time of its last change, in nanoseconds.
        duration (float): Seconds; 0 if unknown.
        error (str): Why it could not be read; empty if it could.

    Example:
        >>> IndexedFile('/videos/dog.mp4', 0, 0, error='empty').error
        'empty'
    """

    path: str
    size: int
    changed: int
    duration: float = 0.0
    error: str = ''

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any, where: str) -> IndexedFile:
        """Read and check a record.

        Raises:
            DamagedIndexError: If it is not one.
        """
        kinds = dict(
            path=str, size=int, changed=int, duration=float, error=str
        )
        if (
            not isinstance(content, dict)
            or set(content) != set(kinds)
            or any(not isinstance(content[k], kinds[k]) for k in kinds)
        ):
            raise DamagedIndexError(
                f'{where}: expected a record of a file with '
                f'{", ".join(kinds)}, but got {str(content)[:80]}. Make the '
                'index again.'
            )
        return cls(**content)


@dataclass
class Moments:
    """The rows of one file: the whole video, or its segments.

    Args:
        spans (Tensor): First second and end of each, float64, shape
            ``(n, 2)``.
        vectors (Tensor): Of the head's ``shortlist_video``, shape
            ``(n, C)``.
        frames (Tensor): Frames of unit length, zero where padded, shape
            ``(n, F, D)``.
        frame_times (Tensor): Seconds at which they are shown, NaN where
            padded, shape ``(n, F)``.
        state (dict[str, Tensor]): Of
            :func:`~eaglenet_mm.search.state_rows.flatten_state`.
        thumbnails (list[bytes]): One JPEG each.
    """

    spans: Tensor
    vectors: Tensor
    frames: Tensor
    frame_times: Tensor
    state: dict[str, Tensor]
    thumbnails: list[bytes]

    def __len__(self) -> int:
        return len(self.spans)

    @classmethod
    def join(cls, pieces: Sequence[Moments]) -> Moments:
        """Put rows one after the other.

        Args:
            pieces (Sequence[Moments]): One at least, of one model.
        """
        return cls(
            spans=torch.cat([piece.spans for piece in pieces]),
            vectors=torch.cat([piece.vectors for piece in pieces]),
            frames=torch.cat([piece.frames for piece in pieces]),
            frame_times=torch.cat([piece.frame_times for piece in pieces]),
            state={
                name: torch.cat([piece.state[name] for piece in pieces])
                for name in pieces[0].state
            },
            thumbnails=[
                image for piece in pieces for image in piece.thumbnails
            ],
        )

    def part(self, start: int, end: int) -> Moments:
        """Take some rows."""
        rows = slice(start, end)
        return Moments(
            spans=self.spans[rows],
            vectors=self.vectors[rows],
            frames=self.frames[rows],
            frame_times=self.frame_times[rows],
            state={name: own[rows] for name, own in self.state.items()},
            thumbnails=self.thumbnails[rows],
        )


@dataclass(frozen=True)
class IndexEntry:
    """One row of an index: a video, or a segment of one.

    Args:
        row_id (int): Its number, which never changes.
        file (IndexedFile): The file it is a part of.
        start (float): Its first second.
        end (float): Its end in seconds.

    Example:
        >>> file = IndexedFile('/videos/dog.mp4', size=81920, changed=0)
        >>> IndexEntry(row_id=7, file=file, start=0.0, end=9.5).file.path
        '/videos/dog.mp4'
    """

    row_id: int
    file: IndexedFile
    start: float
    end: float
