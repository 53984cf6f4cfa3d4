"""Encoders, heads, losses and the retriever that joins them."""

from .data_preprocessor import RetrievalDataPreprocessor
from .encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    HuggingFaceTextEncoder,
    RegisteredEncoder,
    RegisteredTextEncoder,
)
from .heads import (
    BasePairHead,
    CrossTransformerHead,
    EagleNetHead,
    MeanPoolingHead,
    TextProxyHead,
    TMASSHead,
    TS2NetHead,
    WTIHead,
    XPoolHead,
)
from .losses import (
    BilinearEnergy,
    ChannelDecorrelationLoss,
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
    'ChannelDecorrelationLoss',
    'CosineEnergy',
    'CrossTransformerHead',
    'EagleNetHead',
    'EnergyMatchingLoss',
    'HuggingFaceTextEncoder',
    'InfoNCELoss',
    'MLPEnergy',
    'MeanPoolingHead',
    'PairwiseSigmoidLoss',
    'RegisteredEncoder',
    'RegisteredTextEncoder',
    'RetrievalDataPreprocessor',
    'TMASSHead',
    'TS2NetHead',
    'TextProxyHead',
    'TextVideoRetriever',
    'WTIHead',
    'XPoolHead',
]
