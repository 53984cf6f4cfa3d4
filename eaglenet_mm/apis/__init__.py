"""What users import."""

from eaglenet_mm.apis.feature_file import FeatureFile
from eaglenet_mm.apis.retrieval_inferencer import RetrievalInferencer
from eaglenet_mm.apis.retriever_loading import find_config, load_retriever
from eaglenet_mm.search.records import IndexedFile, MomentFilter
from eaglenet_mm.search.searching import SearchAnswer, SearchHit
from eaglenet_mm.search.video_index import VideoIndex

__all__ = [
    'FeatureFile',
    'IndexedFile',
    'MomentFilter',
    'RetrievalInferencer',
    'SearchAnswer',
    'SearchHit',
    'VideoIndex',
    'find_config',
    'load_retriever',
]
