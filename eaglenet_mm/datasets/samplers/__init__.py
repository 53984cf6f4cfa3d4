"""Samplers that are aware of videos and captions."""

from eaglenet_mm.datasets.samplers.distinct_video_batch_sampler import (
    DistinctVideoBatchSampler,
)

__all__ = ['DistinctVideoBatchSampler']
