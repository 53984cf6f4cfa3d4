"""First stages of the search: the nearest vectors, exact or nearly so."""

from .base import Shortlister
from .building import build_shortlister
from .faiss_shortlister import FaissShortlister
from .milvus_shortlister import MilvusShortlister
from .torch_shortlister import TorchShortlister

__all__ = [
    'FaissShortlister',
    'MilvusShortlister',
    'Shortlister',
    'TorchShortlister',
    'build_shortlister',
]
