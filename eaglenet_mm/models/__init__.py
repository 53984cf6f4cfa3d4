"""Encoders, heads, losses and the retriever that joins them."""

from .data_preprocessor import RetrievalDataPreprocessor
from .encoders import CLIPTextEncoder, CLIPVideoEncoder
from .heads import BasePairHead, EagleNetHead, MeanPoolingHead
from .losses import (
    BilinearEnergy,
    CosineEnergy,
    EnergyMatchingLoss,
    InfoNCELoss,
    MLPEnergy,
    PairwiseSigmoidLoss,
)
from .retrievers import TextVideoRetriever

__all__ = [
    'BasePairHead',
    'BilinearEnergy',
    'CLIPTextEncoder',
    'CLIPVideoEncoder',
    'CosineEnergy',
    'EagleNetHead',
    'EnergyMatchingLoss',
    'InfoNCELoss',
    'MLPEnergy',
    'MeanPoolingHead',
    'PairwiseSigmoidLoss',
    'RetrievalDataPreprocessor',
    'TextVideoRetriever',
]
