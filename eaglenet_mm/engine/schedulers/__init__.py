"""Learning-rate schedules."""

from eaglenet_mm.engine.schedulers.warmup_cosine import (
    WarmupCosineLR,
    schedule_factor,
)

__all__ = ['WarmupCosineLR', 'schedule_factor']
