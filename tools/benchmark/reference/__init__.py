"""Slow references, written as the formulas stand."""
