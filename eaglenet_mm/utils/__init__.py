"""Utilities that import no other part of the package."""

from eaglenet_mm.utils.registering import register_all_modules
from eaglenet_mm.utils.safe_checkpoint import (
    TRUST_VARIABLE,
    UnsafeCheckpointError,
    load_checkpoint_file,
)

__all__ = [
    'TRUST_VARIABLE',
    'UnsafeCheckpointError',
    'load_checkpoint_file',
    'register_all_modules',
]
