"""Encoders, heads, losses and the retriever that combines them."""

from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    HuggingFaceTextEncoder,
    RegisteredEncoder,
    RegisteredTextEncoder,
)
from eaglenet_mm.models.heads import (
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
from eaglenet_mm.models.losses import (
    BilinearEnergy,
    ChannelDecorrelationLoss,
    CosineEnergy,
    EnergyMatchingLoss,
    InfoNCELoss,
    MLPEnergy,
    PairwiseSigmoidLoss,
)
from eaglenet_mm.models.retrievers import TextVideoRetriever

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
