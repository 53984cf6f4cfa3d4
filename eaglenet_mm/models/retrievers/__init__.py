"""Models that combine encoders and a head."""

from eaglenet_mm.models.retrievers.text_video_retriever import (
    TextVideoRetriever,
)

__all__ = ['TextVideoRetriever']
