"""Giving free memory of the C library back to the system."""

from __future__ import annotations

import ctypes
import sys


def release_free_heap() -> None:
    """Give pages that nothing uses back to the system, where that is known.

    Cause: torch asks the GNU C library for aligned blocks, and a freed block
    of some megabytes often is a little too small for the next of its size, so
    that a loop over blocks of one size takes ever more memory from the
    system. End: an allocator that takes such blocks up again. Does nothing
    where the C library has no ``malloc_trim``.
    """
    if not sys.platform.startswith('linux'):
        return
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
