"""Losses on score matrices and on features."""

from eaglenet_mm.models.losses.channel_decorrelation_loss import (
    ChannelDecorrelationLoss,
)
from eaglenet_mm.models.losses.energy_matching_loss import (
    BilinearEnergy,
    CosineEnergy,
    EnergyMatchingLoss,
    FrameTextEnergy,
    KeyedNoise,
    LangevinSampler,
    MLPEnergy,
    NoiseSource,
)
from eaglenet_mm.models.losses.score_losses import (
    InfoNCELoss,
    PairLabels,
    PairwiseSigmoidLoss,
    Share,
)

__all__ = [
    'BilinearEnergy',
    'ChannelDecorrelationLoss',
    'CosineEnergy',
    'EnergyMatchingLoss',
    'FrameTextEnergy',
    'InfoNCELoss',
    'KeyedNoise',
    'LangevinSampler',
    'MLPEnergy',
    'NoiseSource',
    'PairLabels',
    'PairwiseSigmoidLoss',
    'Share',
]
