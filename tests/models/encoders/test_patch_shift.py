import pytest
import torch

from eaglenet_mm.models.encoders import PatchShift

NIGHTLY = pytest.mark.nightly


def shift_by_loops(tokens, num_frames):
    """The rule of the specification, token by token."""
    videos = tokens.view(-1, num_frames, *tokens.shape[1:])
    num_tokens = tokens.shape[1]
    fold = num_tokens // 7
    out = videos.clone()
    for video in range(len(videos)):
        for frame in range(num_frames):
            for place in range(1, num_tokens, fold):
                out[video, frame, place] = videos[
                    video, max(frame - 1, 0), place
                ]
        for frame in range(num_frames - 1):
            for place in range(4, num_tokens, fold):
                out[video, frame, place] = videos[video, frame + 1, place]
    return out.view_as(tokens)


@pytest.mark.parametrize('num_frames', [1, 2, 7])
@pytest.mark.parametrize(
    'num_tokens',
    [7, 28, 50, *(pytest.param(n, marks=NIGHTLY) for n in (10, 14, 197))],
)
def test_equals_loops(num_frames, num_tokens):
    tokens = torch.randn(2 * num_frames, num_tokens, 3)
    before = tokens.clone()
    shifted = PatchShift()(tokens, num_frames)
    assert torch.equal(shifted, shift_by_loops(tokens, num_frames))
    assert torch.equal(tokens, before)


def test_large_grid_by_hand():
    """50 tokens, fold 7: 1, 8, ... come from before, 4, 11, ... from after."""
    frames = torch.arange(3.0).view(3, 1, 1).repeat(1, 50, 1)
    shifted = PatchShift()(frames, 3)[..., 0]
    assert shifted[1, 1::7].tolist() == [0.0] * 7
    assert shifted[1, 4::7].tolist() == [2.0] * 7
    assert shifted[0, 1] == 0
    assert shifted[2, 4] == 2
    moved = set(range(1, 50, 7)) | set(range(4, 50, 7))
    kept = [place for place in range(50) if place not in moved]
    assert (shifted[1, kept] == 1).all()


def test_videos_do_not_mix():
    first, second = torch.randn(3, 10, 4), torch.randn(3, 10, 4)
    shift = PatchShift()
    both = shift(torch.cat([first, second]), 3)
    assert torch.equal(both[:3], shift(first, 3))
    assert torch.equal(both[3:], shift(second, 3))


def test_gradient_of_the_gather():
    tokens = torch.randn(4, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: PatchShift()(x, 2), tokens)


def test_strided_input():
    tokens = torch.randn(8, 6, 2).transpose(0, 1)
    expected = shift_by_loops(tokens.contiguous(), 3)
    assert torch.equal(PatchShift()(tokens, 3), expected)


@pytest.mark.parametrize('num_tokens', [1, 5, 6])
def test_too_few_tokens(num_tokens):
    with pytest.raises(
        ValueError, match=f'at least 7 tokens .* but got {num_tokens}'
    ):
        PatchShift()(torch.zeros(2, num_tokens, 4), 2)


@pytest.mark.parametrize('num_frames', [0, 3])
def test_frames_that_do_not_divide(num_frames):
    with pytest.raises(ValueError, match=f'num_frames={num_frames}'):
        PatchShift()(torch.zeros(4, 8, 4), num_frames)
