"""Operations a pair costs, by the formulas of docs/performance.md.

A product of ``m x k`` and ``k x n`` numbers counts ``2 m k n`` operations.
What is computed once a text or once a video is left out, and so are
elementwise operations.
"""

from __future__ import annotations


def brute_force_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair when every pair is expanded to a graph."""
    nodes = frames + 1 + candidates
    hidden, narrow = layers - 1, dim // heads
    return {
        'hidden projections': hidden * 3 * 2 * nodes * dim * dim,
        'hidden self projection': hidden * 2 * nodes * dim * narrow,
        'hidden logits': hidden * 3 * 2 * 2 * nodes * dim,
        'hidden messages': hidden * 3 * 2 * nodes * nodes * dim,
        'last projections': 3 * 2 * nodes * dim * heads * dim,
        'last self projection': 2 * nodes * dim * dim,
        'last logits': 3 * 2 * 2 * nodes * heads * dim,
        'last messages': 3 * 2 * nodes * nodes * heads * dim,
        'radius': 2 * frames * dim + 2 * frames * dim,
        'pooling': 3 * 2 * dim * dim + 2 * 2 * frames * dim,
    }


def factorised_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair in the head; two layers at most."""
    if layers not in (1, 2):
        raise ValueError(
            f'The formulas hold for 1 or 2 layers, but layers={layers}.'
        )
    nodes = 1 + candidates
    terms = {
        'radius': 2 * frames * dim + 2 * frames * dim,
        'enriched text': 2 * candidates * dim,
        'pooling': 2 * dim * dim + 2 * 2 * frames * dim,
    }
    if layers == 1:
        return {'last logits': 2 * candidates * dim * heads, **terms}
    projects_first = frames > candidates
    width = dim + dim // heads + 4 * heads + projects_first * dim
    to_frames = 2 * frames * candidates * dim
    return {
        'candidate products': 2 * candidates * dim * width,
        'text-text messages': 2 * nodes * candidates * dim,
        'frame-to-text messages': 2 * nodes * frames * dim,
        'text-to-frame sums': to_frames * (1 if projects_first else heads),
        'text-to-frame projection': (
            0 if projects_first else 2 * frames * dim * dim
        ),
        'last logits': 2 * (nodes + frames) * dim * heads,
        **terms,
    }
