"""Losses on score matrices, and on features for energies."""

from .channel_decorrelation_loss import ChannelDecorrelationLoss
from .energies import BilinearEnergy, CosineEnergy, FrameTextEnergy, MLPEnergy
from .energy_matching_loss import EnergyMatchingLoss
from .info_nce_loss import InfoNCELoss
from .joint_batch import PairLabels, Share
from .langevin_sampler import KeyedNoise, LangevinSampler, NoiseSource
from .pairwise_sigmoid_loss import PairwiseSigmoidLoss

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
