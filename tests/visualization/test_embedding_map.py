from __future__ import annotations

import pytest
import torch

from eaglenet_mm.visualization.embedding_map import map_pairs, project_to_plane


def test_a_plane_is_found_again() -> None:
    basis, _ = torch.linalg.qr(torch.randn(9, 2, dtype=torch.float64))
    flat = torch.randn(30, 2, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    plane, explained = project_to_plane(flat @ basis.T + 3)
    assert explained == pytest.approx(1)
    torch.testing.assert_close(
        torch.cdist(plane, plane), torch.cdist(flat, flat)
    )
    assert plane[:, 0].var() > plane[:, 1].var()
    assert plane.mean(0).abs().max() < 1e-12


def test_the_variance_of_the_plane_is_stated() -> None:
    # along the axes: 9, 4 and 1, so 13 of 14
    points = torch.diag(torch.tensor([3.0, 2.0, 1.0])).double()
    _, explained = project_to_plane(torch.cat([points, -points]))
    assert explained == pytest.approx(13 / 14)


def test_the_same_points_give_the_same_map() -> None:
    points = torch.randn(20, 8)
    plane, _ = project_to_plane(points)
    assert torch.equal(plane, project_to_plane(points.clone())[0])
    # the sign is that of the points, not of the decomposition
    turned, _ = project_to_plane(points.flip(0))
    torch.testing.assert_close(turned, plane.flip(0))
    distances = torch.cdist(points.double(), points.double())
    assert bool((torch.cdist(plane, plane) <= distances + 1e-9).all())


@pytest.mark.parametrize('shape', [(1, 4), (3, 1), (2, 5), (3, 4)])
def test_few_points_and_axes(shape) -> None:
    plane, explained = project_to_plane(torch.randn(*shape))
    assert plane.shape == (shape[0], 2)
    assert bool(plane.isfinite().all())
    assert 0 <= explained <= 1 + 1e-12
    same, explained = project_to_plane(torch.ones(*shape))
    assert torch.equal(same, torch.zeros(shape[0], 2).double())
    assert explained == 1


def test_pairs_are_mapped_with_and_without_the_gap() -> None:
    texts = torch.randn(6, 5)
    videos = texts + torch.tensor([4.0, 0, 0, 0, 0])
    plain, centred = map_pairs('Before', 'text', range(10, 16), texts, videos)
    assert plain.rows == centred.rows == [10, 11, 12, 13, 14, 15]
    assert (plain.centred, centred.centred) == (False, True)
    expected = torch.cosine_similarity(texts, videos, dim=-1).mean()
    assert plain.own_cosine == pytest.approx(float(expected), abs=1e-4)

    def gap(item) -> float:
        means = [torch.tensor(p).mean(0) for p in (item.texts, item.videos)]
        return float((means[0] - means[1]).norm())

    assert gap(plain) > 0.5
    assert gap(centred) < 1e-3
    # lengths do not matter
    assert map_pairs('Before', 'text', range(10, 16), 3 * texts, videos) == [
        plain,
        centred,
    ]
