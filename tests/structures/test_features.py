"""Containers of features."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures


@dataclass
class Nested(Features):
    inner: TextFeatures
    extra: torch.Tensor | None = None


def features() -> VideoFeatures:
    return VideoFeatures(
        torch.arange(24.0).view(3, 4, 2), torch.ones(3, 4).bool()
    )


def test_select_and_cat_are_inverse() -> None:
    whole = features()
    parts = [whole.index_select(slice(0, 1)),
             whole.index_select(torch.tensor([1, 2]))]  # fmt: skip
    joined = VideoFeatures.cat(parts)
    assert torch.equal(joined.frames, whole.frames)
    assert torch.equal(joined.frame_mask, whole.frame_mask)
    assert joined.patches is None
    assert len(joined) == 3


def test_to_changes_floating_tensors_only() -> None:
    half = features().to(torch.float16)
    assert half.frames.dtype is torch.float16
    assert half.frame_mask.dtype is torch.bool
    assert features().to('cpu').frames.device.type == 'cpu'


def test_nested_features_are_mapped() -> None:
    nested = Nested(TextFeatures(torch.arange(6.0).view(3, 2)))
    part = nested.index_select(slice(1, 3))
    assert part.inner.embeds.tolist() == [[2, 3], [4, 5]]
    assert len(part) == 2
    assert len(Nested.cat([part, part]).inner) == 4
    assert len(list(nested.tensors())) == 1


def test_cat_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match='at least one part'):
        TextFeatures.cat([])
    one = TextFeatures(torch.ones(1, 2))
    other = TextFeatures(torch.ones(1, 2), tokens=torch.ones(1, 3, 2))
    with pytest.raises(ValueError, match="'tokens' is present in 1 of 2"):
        TextFeatures.cat([one, other])


def test_split_is_undone_by_cat() -> None:
    video = VideoFeatures(torch.randn(5, 2, 3), torch.rand(5, 2) > 0.5)
    parts = video.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert all(part.patches is None for part in parts)
    joined = VideoFeatures.cat(parts)
    assert torch.equal(joined.frames, video.frames)
    assert torch.equal(joined.frame_mask, video.frame_mask)
