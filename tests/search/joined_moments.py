"""What a reader passes on in pieces, as columns."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

from eaglenet_mm.search.moment_reading import ReadMoments


def join(pieces: Iterable[ReadMoments]) -> SimpleNamespace:
    """Join the pieces of one file; ``sizes`` are those of the pieces."""
    pieces = list(pieces)
    moments = [moment for piece in pieces for moment in piece.moments]
    errors = [piece.error for piece in pieces if piece.error]
    return SimpleNamespace(
        spans=[moment.span for moment in moments],
        frames=[moment.frames for moment in moments],
        frame_times=[moment.times for moment in moments],
        thumbnails=[moment.thumbnail for moment in moments],
        sizes=[len(piece.moments) for piece in pieces],
        duration=pieces[-1].duration,
        error=errors[0] if errors else '',
    )
