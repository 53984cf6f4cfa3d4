"""Models that join encoders and a head."""

from .text_video_retriever import TextVideoRetriever

__all__ = ['TextVideoRetriever']
