"""First stages of the search: the nearest vectors, exact or nearly so."""

from .base import Shortlister
from .building import build_shortlister
from .torch_shortlister import TorchShortlister

__all__ = [
    'Shortlister',
    'TorchShortlister',
    'build_shortlister',
]
