import torch
from open_clip.transformer import ResidualAttentionBlock

from eaglenet_mm.models.encoders import PatchShift
from eaglenet_mm.models.encoders.clip_tower import CLIPBlock


def make_block(**kwargs):
    return ResidualAttentionBlock(d_model=12, n_head=3, **kwargs)


def test_equals_open_clip_in_train_and_eval():
    block = make_block(ls_init_value=0.3)
    ours = CLIPBlock(block, is_causal=False)
    tokens = torch.randn(4, 8, 12)
    expected = block(tokens)
    for mode in (True, False):
        ours.train(mode)
        torch.testing.assert_close(ours(tokens), expected)
        with torch.no_grad():
            torch.testing.assert_close(ours(tokens), expected)


def test_causal_equals_the_mask():
    block = make_block()
    tokens = torch.randn(4, 8, 12)
    mask = torch.full((8, 8), float('-inf')).triu(1)
    torch.testing.assert_close(
        CLIPBlock(block, is_causal=True)(tokens),
        block(tokens, attn_mask=mask),
    )


def test_shift_enters_attention_and_leaves_the_residual():
    block = make_block()
    tokens = torch.randn(6, 8, 12)
    shifted = PatchShift()(block.ln_1(tokens), 3)
    expected = tokens + block.attention(shifted)
    expected = expected + block.mlp(block.ln_2(expected))
    ours = CLIPBlock(block, is_causal=False, shift=True)
    torch.testing.assert_close(ours(tokens, 3), expected)
    assert not torch.allclose(ours(tokens, 2), expected)


def test_names_and_order_of_the_parameters():
    block = make_block(ls_init_value=0.3)
    ours = CLIPBlock(block, is_causal=False, shift=True)
    assert list(ours.state_dict()) == list(block.state_dict())
    for name, value in ours.named_parameters():
        assert value is dict(block.named_parameters())[name]
