"""Schedules of the learning rate."""

from eaglenet_mm.engine.schedulers.warmup_cosine import (
    WarmupCosineLR,
    schedule_factor,
)

__all__ = ['WarmupCosineLR', 'schedule_factor']
