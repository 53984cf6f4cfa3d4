"""Losses on score matrices, and on features for energies."""

from .channel_decorrelation_loss import ChannelDecorrelationLoss
from .energy_matching_loss import (
    BilinearEnergy,
    CosineEnergy,
    EnergyMatchingLoss,
    FrameTextEnergy,
    KeyedNoise,
    LangevinSampler,
    MLPEnergy,
    NoiseSource,
)
from .score_losses import InfoNCELoss, PairLabels, PairwiseSigmoidLoss, Share

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
