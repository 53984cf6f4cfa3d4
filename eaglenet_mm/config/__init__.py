"""Configs: lookup by name, checks and overrides."""

from eaglenet_mm.config.knobs import KNOBS
from eaglenet_mm.config.reading import (
    config_path,
    open_config,
    shipped_configs,
)
from eaglenet_mm.config.start_weights import skip_pretrained

__all__ = [
    'KNOBS',
    'config_path',
    'open_config',
    'shipped_configs',
    'skip_pretrained',
]
