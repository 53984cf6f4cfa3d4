"""Projection of text and video embeddings to the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.visualization.results_data import Projection


def project_to_plane(points: Tensor) -> tuple[Tensor, float]:
    """Project points ``(n, D)`` onto their first two principal components.

    The result is deterministic: the entry of largest magnitude of each
    direction is positive. Distances never exceed the original ones. Returns
    float64, shape ``(n, 2)``, and the share of explained variance.
    """
    centred = points.double().cpu()
    centred = centred - centred.mean(dim=0, keepdim=True)
    plane = centred.new_zeros(len(centred), 2)
    total = float(centred.square().sum())
    if total == 0:  # a single point, or all equal
        return plane, 1.0
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]  # (2, D), fewer if there are fewer
    largest = directions.gather(
        1, directions.abs().argmax(dim=1, keepdim=True)
    )
    plane[:, : len(directions)] = centred @ (directions * largest.sign()).T
    return plane, float(values[:2].square().sum()) / total


def map_pairs(
    title: str,
    text_name: str,
    rows: Sequence[int],
    texts: Tensor,
    videos: Tensor,
) -> list[Projection]:
    """Project texts and their own videos, both ``(n, D)``, to one plane.

    Texts and videos usually form two clouds whose gap takes up one direction,
    so a second map centres each side first. Vectors are normalised to unit
    length, since ranking uses cosines.
    """
    texts = F.normalize(texts.double(), dim=-1)
    videos = F.normalize(videos.double(), dim=-1)
    cosine = float((texts * videos).sum(dim=-1).mean())
    maps = []
    for centred in (False, True):
        if centred:
            texts = texts - texts.mean(dim=0)
            videos = videos - videos.mean(dim=0)
        plane, explained = project_to_plane(torch.cat([texts, videos]))
        rounded = [[round(x, 4) for x in point] for point in plane.tolist()]
        maps.append(
            Projection(
                title=title,
                text_name=text_name,
                rows=list(rows),
                texts=rounded[: len(rows)],
                videos=rounded[len(rows) :],
                explained=round(explained, 4),
                own_cosine=round(cosine, 4),
                centred=centred,
            )
        )
    return maps
