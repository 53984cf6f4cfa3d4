"""Embeddings of texts and videos in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.visualization.results_data import Projection


def project_to_plane(points: Tensor) -> tuple[Tensor, float]:
    """Project points ``(n, D)`` onto the plane in which they differ most.

    Principal components, without random numbers: the same embeddings always
    give the same map, and distances in it are never longer than the true
    ones. Each direction points to where its entry of largest magnitude is
    positive. Returns float64, shape ``(n, 2)``, and the share of the variance
    that the plane holds.
    """
    centred = points.double().cpu()
    centred = centred - centred.mean(dim=0, keepdim=True)
    plane = centred.new_zeros(len(centred), 2)
    total = float(centred.square().sum())
    if total == 0:  # a single point, or all of them the same
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
    """Map texts and their own videos, both ``(n, D)``, in one plane.

    Texts and videos mostly lie in two clouds, and the gap between them then
    takes one of the two directions: the second map leaves it out by centring
    each side. Vectors get unit length first, since cosines rank.
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
