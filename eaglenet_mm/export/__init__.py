"""Export: encoders and scoring as files that run without this package."""

from .encoders import export_text_encoder, export_video_encoder
from .exported_file import ExportedFile
from .retriever import PARTS, export_retriever
from .scoring import export_scoring, export_scoring_onnx

__all__ = [
    'PARTS',
    'ExportedFile',
    'export_retriever',
    'export_scoring',
    'export_scoring_onnx',
    'export_text_encoder',
    'export_video_encoder',
]
