import pytest
import torch
import torch.nn.functional as F

from eaglenet_mm.models.converters import convert_baseline_release
from eaglenet_mm.models.converters.release_source import read_source
from eaglenet_mm.registry import MODELS
from tests.models.converters.baseline_checkpoint import (
    model_config,
    release_state_dict,
    to_hugging_face,
)
from tests.models.encoders.tiny_clip import (
    pixels,
    reference_clip,
    tiny_arch,
    token_ids,
)


def wide_clip():
    """Weights of towers with two heads, where the order of rows matters."""
    changes = dict(text_cfg__width=128, text_cfg__heads=2)
    clip = reference_clip(vision_cfg__width=128, **changes)
    state = clip.state_dict()
    for name, value in state.items():
        if value.ndim:
            state[name] = torch.randn_like(value) * 0.1
    return state


def linear(x, state, name):
    return F.linear(x, state[f'{name}.weight'], state[f'{name}.bias'])


def norm(x, state, name):
    weight, bias = state[f'{name}.weight'], state[f'{name}.bias']
    return F.layer_norm(x, weight.shape, weight, bias)


def encoder(x, state, prefix, causal):
    """Run the blocks of Hugging Face's layout, heads 64 wide."""
    layer = 0
    while f'{prefix}.{layer}.layer_norm1.bias' in state:
        name = f'{prefix}.{layer}'
        normed = norm(x, state, f'{name}.layer_norm1')
        query, key, value = (
            linear(normed, state, f'{name}.self_attn.{part}_proj')
            .unflatten(-1, (-1, 64))
            .transpose(1, 2)
            for part in 'qkv'
        )
        logits = query @ key.transpose(-1, -2) / 64**0.5
        if causal:
            later = torch.ones(logits.shape[-2:]).triu(1).bool()
            logits = logits.masked_fill(later, float('-inf'))
        mixed = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + linear(mixed, state, f'{name}.self_attn.out_proj')
        hidden = linear(
            norm(x, state, f'{name}.layer_norm2'), state, f'{name}.mlp.fc1'
        )
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + linear(hidden, state, f'{name}.mlp.fc2')
        layer += 1
    return x


def text_features(state, ids):
    embeddings = 'text_model.embeddings'
    x = state[f'{embeddings}.token_embedding.weight'][ids]
    x = x + state[f'{embeddings}.position_embedding.weight'][: ids.shape[1]]
    x = encoder(x, state, 'text_model.encoder.layers', causal=True)
    x = norm(x, state, 'text_model.final_layer_norm')
    last = x[torch.arange(len(x)), ids.argmax(1)]
    return F.linear(last, state['text_projection.weight'])


def image_features(state, images):
    embeddings = 'vision_model.embeddings'
    kernel = state[f'{embeddings}.patch_embedding.weight']
    patches = F.conv2d(images, kernel, stride=kernel.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    first = state[f'{embeddings}.class_embedding'].expand(len(images), 1, -1)
    x = torch.cat([first, patches], dim=1)
    x = x + state[f'{embeddings}.position_embedding.weight']
    x = norm(x, state, 'vision_model.pre_layrnorm')
    x = encoder(x, state, 'vision_model.encoder.layers', causal=False)
    x = norm(x[:, 0], state, 'vision_model.post_layernorm')
    return F.linear(x, state['visual_projection.weight'])


def test_features_of_both_layouts_agree():
    theirs = to_hugging_face(wide_clip())
    config = model_config('clip4clip_mean')
    changes = dict(
        text_cfg__width=128, text_cfg__heads=2, vision_cfg__width=128
    )
    for side in ('text_encoder', 'video_encoder'):
        config[side]['arch'] = tiny_arch(**changes)
    model = MODELS.build(config).eval()
    named = {f'clip.{name}': value for name, value in theirs.items()}
    ours, _ = convert_baseline_release(named, 'clip4clip_mean', model=model)
    model.load_state_dict(ours)
    ids, frames = token_ids([2, 6, 4], columns=6), pixels(2, 3)
    with torch.no_grad():
        text = model.text_encoder(ids).embeds
        video = model.video_encoder(frames).frames
    torch.testing.assert_close(text, text_features(theirs, ids))
    expected = image_features(theirs, frames.flatten(0, 1))
    torch.testing.assert_close(video.flatten(0, 1), expected)
    assert text.std() > 0.05
    assert video.std() > 0.05


def test_names_return():
    clip = wide_clip()
    source = read_source(to_hugging_face(clip))
    assert set(source.tensors) == {f'clip.{name}' for name in clip}
    for name, value in clip.items():
        assert torch.equal(source.tensors[f'clip.{name}'], value), name
    assert source.unknown == [
        'clip.text_model.embeddings.position_ids',
        'clip.vision_model.embeddings.position_ids',
    ]
    name = 'clip.visual.transformer.resblocks.1.attn.in_proj_weight'
    assert source.origins[name] == [
        f'clip.vision_model.encoder.layers.1.self_attn.{part}_proj.weight'
        for part in 'qkv'
    ]


def test_names_of_no_clip_model():
    state = release_state_dict('x_pool')
    # the last is OpenAI's name, whose matrix would have to be transposed
    for name in ('text_model.encoder.layers.0.mlp.fc3.bias', 'proj'):
        state[f'clip.{name}'] = torch.zeros(1)
    state['clip.visual.proj'] = state.pop('clip.visual_projection.weight')
    with pytest.raises(
        ValueError,
        match=r'3 names unknown: .*fc3\.bias, clip\.proj, clip\.visual\.proj',
    ):
        convert_baseline_release(state, 'x_pool')


def test_a_projection_is_missing():
    state = release_state_dict('x_pool')
    del state['clip.vision_model.encoder.layers.2.self_attn.k_proj.bias']
    with pytest.raises(
        ValueError, match=r'resblocks\.2\.attn\.in_proj_bias .* only .*q_proj'
    ):
        convert_baseline_release(state, 'x_pool')
