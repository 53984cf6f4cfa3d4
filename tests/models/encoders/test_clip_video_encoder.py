import pytest
import torch

from eaglenet_mm.models.encoders import CLIPVideoEncoder, PatchShift
from tests.models.encoders.tiny_clip import (
    EMBED_DIM,
    NUM_TOKENS,
    pixels,
    reference_clip,
    tiny_arch,
)


def make_pair(shift_layers=()):
    reference = reference_clip()
    encoder = CLIPVideoEncoder(tiny_arch(), shift_layers=shift_layers)
    encoder.tower.load_state_dict(reference.visual.state_dict())
    return encoder, reference


def features_with_shift(tower, video, shift_layers):
    """open_clip's tower by hand, one video, shift in the attention input."""
    x = tower.conv1(video).flatten(2).transpose(1, 2)
    first = tower.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + tower.positional_embedding
    x = tower.ln_pre(x)
    for i, block in enumerate(tower.transformer.resblocks):
        normed = block.ln_1(x)
        if i in shift_layers:
            normed = PatchShift()(normed, len(video))
        x = x + block.attention(normed)
        x = x + block.mlp(block.ln_2(x))
    return tower.ln_post(x)[:, 0] @ tower.proj


@pytest.mark.parametrize('num_frames', [1, 2, 7])
def test_without_shift_equals_open_clip(num_frames):
    encoder, reference = make_pair()
    video = pixels(2, num_frames)
    feats = encoder(video, torch.ones(2, num_frames, dtype=torch.bool))
    expected = reference.encode_image(video.flatten(0, 1))
    torch.testing.assert_close(feats.frames.flatten(0, 1), expected)
    assert feats.frames.shape == (2, num_frames, EMBED_DIM)
    assert feats.patches is None


@pytest.mark.parametrize('shift_layers', [(2,), (0, 1), (1, 2)])
def test_with_shift(shift_layers):
    encoder, reference = make_pair(shift_layers)
    video = pixels(2, 4)
    frames = encoder(video).frames
    for got, one in zip(frames, video, strict=True):
        torch.testing.assert_close(
            got, features_with_shift(reference.visual, one, shift_layers)
        )
    plain = make_pair()[0]
    plain.load_state_dict(encoder.state_dict())
    assert not torch.allclose(plain(video).frames, frames, atol=1e-3)


def test_one_frame_is_not_changed_by_the_shift():
    encoder, reference = make_pair((0, 1, 2))
    video = pixels(3, 1)
    torch.testing.assert_close(
        encoder(video).frames[:, 0], reference.encode_image(video[:, 0])
    )


def test_the_number_of_frames_is_no_state():
    encoder, _ = make_pair((1,))
    video = pixels(2, 6)
    expected = encoder(video).frames
    encoder(pixels(1, 3))
    torch.testing.assert_close(encoder(video).frames, expected)


def test_videos_are_independent():
    encoder, _ = make_pair((1, 2))
    video = pixels(3, 4)
    torch.testing.assert_close(
        encoder(video).frames[1:], encoder(video[1:]).frames
    )


def test_the_mask_passes_through_and_padding_is_encoded():
    encoder, _ = make_pair((1,))
    video = pixels(2, 3)
    video[0, 2] = 0
    mask = torch.tensor([[True, True, False], [True, True, True]])
    feats = encoder(video, mask)
    assert torch.equal(feats.frame_mask, mask)
    assert encoder(video).frame_mask.all()
    torch.testing.assert_close(feats.frames, encoder(video).frames)
    assert feats.frames[0, 2].abs().max() > 0
    shorter = encoder(video[:1, :2]).frames
    assert not torch.allclose(feats.frames[0, 1], shorter[0, 1], atol=1e-4)


def test_patches():
    encoder, reference = make_pair()
    encoder.output_patches = True
    video = pixels(2, 3)
    feats = encoder(video)
    assert feats.patches.shape == (2, 3, NUM_TOKENS - 1, EMBED_DIM)
    reference.visual.output_tokens = True
    pooled, patches = reference.visual(video.flatten(0, 1))
    torch.testing.assert_close(feats.frames.flatten(0, 1), pooled)
    torch.testing.assert_close(
        feats.patches.flatten(0, 1), patches @ reference.visual.proj
    )


def test_default_shift_needs_twelve_layers():
    with pytest.raises(ValueError, match=r'3 layers, but got \[10, 11\]'):
        CLIPVideoEncoder(tiny_arch())


@pytest.mark.parametrize(
    'shape', [(2, 3, 12, 12), (1, 2, 3, 16, 16), (1, 2, 1, 12, 12)]
)
def test_wrong_pixels(shape):
    encoder, _ = make_pair()
    with pytest.raises(ValueError, match=r'3, 12, 12\), but got') as error:
        encoder(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_wrong_mask():
    encoder, _ = make_pair()
    with pytest.raises(ValueError, match=r'\(2, 3\) .* but got \(2, 4\)'):
        encoder(pixels(2, 3), torch.ones(2, 4, dtype=torch.bool))
