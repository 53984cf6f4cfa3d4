"""Schedules of the learning rate."""

from .warmup_cosine import WarmupCosineLR, schedule_factor

__all__ = ['WarmupCosineLR', 'schedule_factor']
