"""What users import."""

from eaglenet_mm.search.records import IndexedFile, IndexEntry
from eaglenet_mm.search.searching import SearchHit
from eaglenet_mm.search.video_index import VideoIndex

from .feature_file import FeatureFile
from .retrieval_inferencer import RetrievalInferencer
from .retriever_loading import find_config, load_retriever

__all__ = [
    'FeatureFile',
    'IndexEntry',
    'IndexedFile',
    'RetrievalInferencer',
    'SearchHit',
    'VideoIndex',
    'find_config',
    'load_retriever',
]
