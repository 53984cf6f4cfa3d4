"""Return of free heap memory to the system."""

from __future__ import annotations

import ctypes
import sys


def release_free_heap() -> None:
    """Return free pages of the heap to the system, with glibc only.

    Cause: torch requests aligned blocks, and a freed block of some megabytes
    is often slightly too small for the next one of its size, so that a loop
    over equal blocks keeps taking memory from the system. End: an allocator
    that reuses such blocks.
    """
    if not sys.platform.startswith('linux'):
        return
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
