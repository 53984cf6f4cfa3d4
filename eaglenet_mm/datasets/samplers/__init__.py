"""Samplers that know about videos and captions."""

from .distinct_video_batch_sampler import DistinctVideoBatchSampler

__all__ = ['DistinctVideoBatchSampler']
