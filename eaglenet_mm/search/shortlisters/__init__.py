"""First stages of the search: the nearest vectors, exact or nearly so."""

from eaglenet_mm.search.shortlisters.base import Shortlister
from eaglenet_mm.search.shortlisters.building import build_shortlister
from eaglenet_mm.search.shortlisters.faiss_shortlister import FaissShortlister
from eaglenet_mm.search.shortlisters.milvus_shortlister import (
    MilvusShortlister,
)
from eaglenet_mm.search.shortlisters.torch_shortlister import TorchShortlister

__all__ = [
    'FaissShortlister',
    'MilvusShortlister',
    'Shortlister',
    'TorchShortlister',
    'build_shortlister',
]
