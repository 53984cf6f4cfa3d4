"""Tools without a model in them: checkpoints, launching, processes."""

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
