"""Export of encoders and scoring to files that do not need this package."""

from eaglenet_mm.export.encoders import (
    export_text_encoder,
    export_video_encoder,
)
from eaglenet_mm.export.exported_file import ExportedFile
from eaglenet_mm.export.retriever import PARTS, export_retriever
from eaglenet_mm.export.scoring import export_scoring, export_scoring_onnx

__all__ = [
    'PARTS',
    'ExportedFile',
    'export_retriever',
    'export_scoring',
    'export_scoring_onnx',
    'export_text_encoder',
    'export_video_encoder',
]
