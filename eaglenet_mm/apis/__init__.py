"""What users import."""

from .text_search import SearchHit, load_retriever, search_videos

__all__ = ['SearchHit', 'load_retriever', 'search_videos']
