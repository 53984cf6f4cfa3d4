"""Samplers that know about videos and captions."""

from eaglenet_mm.datasets.samplers.distinct_video_batch_sampler import (
    DistinctVideoBatchSampler,
)

__all__ = ['DistinctVideoBatchSampler']
