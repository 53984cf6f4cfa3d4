import pytest
import torch

from eaglenet_mm.models.encoders import CLIPTextEncoder
from tests.models.encoders.tiny_clip import (
    CONTEXT_LENGTH,
    VOCAB_SIZE,
    reference_clip,
    tiny_arch,
    token_ids,
)


@pytest.fixture
def pair():
    reference = reference_clip()
    encoder = CLIPTextEncoder(tiny_arch())
    weights = reference.state_dict()
    encoder.tower.load_state_dict(
        {name: weights[name] for name in encoder.tower.state_dict()}
    )
    return encoder, reference


@pytest.mark.parametrize('count', [1, 2, 7])
def test_equals_open_clip(pair, count):
    encoder, reference = pair
    ids = token_ids([2 + i for i in range(count)])
    feats = encoder(ids)
    torch.testing.assert_close(feats.embeds, reference.encode_text(ids))
    assert feats.tokens is None
    assert feats.token_mask is None


def test_shorter_inputs_give_the_same_features(pair):
    encoder, _ = pair
    ids = token_ids([3, 5])
    expected = encoder(ids).embeds
    torch.testing.assert_close(encoder(ids[:, :5]).embeds, expected)


def test_first_of_two_end_tokens(pair):
    encoder, _ = pair
    ids = token_ids([3, 3])
    ids[1] = ids[0]
    ids[1, 6] = VOCAB_SIZE - 1
    feats = encoder(ids).embeds
    torch.testing.assert_close(feats[1], feats[0])


def test_tokens(pair):
    encoder, reference = pair
    encoder.output_tokens = True
    ids = token_ids([3, 9])
    feats = encoder(ids)
    assert feats.tokens.shape == (2, CONTEXT_LENGTH, encoder.embed_dim)
    assert feats.token_mask.tolist() == [
        [True] * 3 + [False] * 6,
        [True] * 9,
    ]
    torch.testing.assert_close(feats.embeds, reference.encode_text(ids))
    torch.testing.assert_close(feats.tokens[1, 8], feats.embeds[1])
    torch.testing.assert_close(feats.tokens[0, 2], feats.embeds[0])


def test_words_after_the_end_do_not_matter(pair):
    encoder, _ = pair
    ids = token_ids([4])
    other = ids.clone()
    other[0, 4:] = 7
    torch.testing.assert_close(encoder(other).embeds, encoder(ids).embeds)


def test_too_many_tokens(pair):
    with pytest.raises(ValueError, match=r'at most 9 tokens.*\(2, 12\)'):
        pair[0](token_ids([3, 5], columns=12))


def test_no_tokens_and_other_shapes(pair):
    for shape in ((2, 0), (4,), (), (2, 1, 4)):
        with pytest.raises(ValueError, match=r'shape \(texts, tokens\)'):
            pair[0](torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize('wrong', [-1, VOCAB_SIZE, 49407])
def test_ids_of_another_vocabulary(pair, wrong):
    ids = token_ids([3])
    ids[0, 1] = wrong
    with pytest.raises(ValueError, match=rf'\[0, 39\], .*{wrong}'):
        pair[0](ids)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bool])
def test_ids_that_are_no_integers(pair, dtype):
    with pytest.raises(TypeError, match=f'integers, but got {dtype}'):
        pair[0](torch.ones(2, 4, dtype=dtype))


def test_int32_and_empty_batches(pair):
    ids = token_ids([3])
    torch.testing.assert_close(pair[0](ids.int()).embeds, pair[0](ids).embeds)
    assert pair[0](ids[:0]).embeds.shape == (0, 16)
