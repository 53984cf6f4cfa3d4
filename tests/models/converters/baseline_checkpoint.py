"""Small checkpoints in the form of other methods' releases, and models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.models.encoders.tiny_clip import reference_clip, tiny_arch

EMBED_DIM = 16
NUM_FRAMES = 3
MAX_WORDS = 6
NUM_PATCHES = 9
#: Rows of the position tables of a release, more than any model needs.
NUM_POSITIONS = 20
NUM_BLOCKS = 2
HUGGING_FACE = ('x_pool', 't_mass')
SHIFTED_LAYERS = (1, 2)

Shapes = dict[str, tuple[int, ...]]


def block_shapes(prefix: str, width: int, count: int = NUM_BLOCKS) -> Shapes:
    shapes: Shapes = {}
    for block in range(count):
        name = f'{prefix}.resblocks.{block}.'
        shapes |= {
            name + 'attn.in_proj_weight': (3 * width, width),
            name + 'attn.in_proj_bias': (3 * width,),
            name + 'attn.out_proj.weight': (width, width),
            name + 'attn.out_proj.bias': (width,),
            name + 'ln_1.weight': (width,),
            name + 'ln_1.bias': (width,),
            name + 'ln_2.weight': (width,),
            name + 'ln_2.bias': (width,),
            name + 'mlp.c_fc.weight': (4 * width, width),
            name + 'mlp.c_fc.bias': (4 * width,),
            name + 'mlp.c_proj.weight': (width, 4 * width),
            name + 'mlp.c_proj.bias': (width,),
        }
    return shapes


def head_shapes(method: str, width: int = EMBED_DIM) -> Shapes:
    """Names and shapes of a released head, unused parameters included."""
    pooling: Shapes = {}
    for layer in ('cross_attn.q_proj', 'cross_attn.k_proj',
                  'cross_attn.v_proj', 'cross_attn.out_proj',
                  'linear_proj'):  # fmt: skip
        pooling[f'pool_frames.{layer}.weight'] = (width, width)
        pooling[f'pool_frames.{layer}.bias'] = (width,)
    for place in '123':
        pooling[f'pool_frames.layer_norm{place}.weight'] = (width,)
        pooling[f'pool_frames.layer_norm{place}.bias'] = (width,)
    positions: Shapes = {
        'frame_position_embeddings.weight': (NUM_POSITIONS, width)
    }
    temporal = positions | block_shapes('transformerClip', width)
    lstm: Shapes = {
        'lstm_visual.weight_ih_l0': (4 * width, width),
        'lstm_visual.weight_hh_l0': (4 * width, width),
        'lstm_visual.bias_ih_l0': (4 * width,),
        'lstm_visual.bias_hh_l0': (4 * width,),
    }
    predictor = 'visual_token_selector.score_predictor'
    shapes: dict[str, Shapes] = {
        'x_pool': pooling,
        't_mass': pooling
        | {
            'stochastic.std_branch.linear_proj.weight': (width, NUM_FRAMES),
            'stochastic.std_branch.linear_proj.bias': (width,),
            'stochastic.std_branch.learnable_scalar': (1,),
        },
        'clip4clip_mean': {},
        'clip4clip_lstm': positions | lstm,
        'clip4clip_transformer': temporal,
        'clip4clip_tight': {
            'cross.embeddings.position_embeddings.weight': (
                NUM_POSITIONS,
                width,
            ),
            **block_shapes('cross.transformer', width),
            'cross.pooler.ln_pool.weight': (width,),
            'cross.pooler.ln_pool.bias': (width,),
            'cross.pooler.dense.weight': (width, width),
            'cross.pooler.dense.bias': (width,),
            'similarity_dense.weight': (1, width),
            'similarity_dense.bias': (1,),
        },
        'ts2_net': temporal
        | {
            f'{predictor}.in_conv.0.weight': (width,),
            f'{predictor}.in_conv.0.bias': (width,),
            f'{predictor}.in_conv.1.weight': (width // 2, width),
            f'{predictor}.out_conv.0.weight': (width // 2, width),
            f'{predictor}.out_conv.2.weight': (1, width // 2),
            'visual_prompt_encoder.proj.weight': (2, 2),
            'text_token_selector.score.weight': (2, 2),
        },
        'wti': temporal
        | {
            f'{side}_weight_fc.{place}.{kind}': shape
            for side in ('text', 'video')
            for place, rows in ((0, width), (2, 1))
            for kind, shape in (('weight', (rows, width)), ('bias', (rows,)))
        },
    }
    return shapes[method]


def release_state_dict(
    method: str, width: int = EMBED_DIM
) -> dict[str, Tensor]:
    """Random weights under the names of a release."""
    clip = {
        name: torch.randn_like(value) * 0.2 if value.ndim else value
        for name, value in reference_clip(embed_dim=width).state_dict().items()
    }
    clip['logit_scale'] = torch.tensor(4.5)
    if method in HUGGING_FACE:
        clip = to_hugging_face(clip)
    elif method == 'ts2_net':
        for layer in SHIFTED_LAYERS:
            part = f'visual.transformer.resblocks.{layer}.attn.'
            clip = {
                name.replace(part, f'{part}net.'): value
                for name, value in clip.items()
            }
    state = {f'clip.{name}': value for name, value in clip.items()}
    for name, shape in head_shapes(method, width).items():
        state[name] = torch.randn(shape)
    return state


def to_hugging_face(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a model of OpenAI's names those of Hugging Face's."""
    state: dict[str, Tensor] = {'logit_scale': clip['logit_scale']}
    for side, theirs, last in (
        ('text_model', '', 'ln_final'),
        ('vision_model', 'visual.', 'visual.ln_post'),
    ):
        table = clip[f'{theirs}positional_embedding']
        embeddings = f'{side}.embeddings'
        state[f'{embeddings}.position_embedding.weight'] = table
        state[f'{embeddings}.position_ids'] = torch.arange(len(table))[None]
        norm = 'final_layer_norm' if side == 'text_model' else 'post_layernorm'
        for kind in ('weight', 'bias'):
            state[f'{side}.{norm}.{kind}'] = clip[f'{last}.{kind}']
        block = 0
        while f'{theirs}transformer.resblocks.{block}.ln_1.bias' in clip:
            source = f'{theirs}transformer.resblocks.{block}'
            target = f'{side}.encoder.layers.{block}'
            for kind in ('weight', 'bias'):
                thirds = clip[f'{source}.attn.in_proj_{kind}'].chunk(3)
                for part, value in zip('qkv', thirds, strict=True):
                    state[f'{target}.self_attn.{part}_proj.{kind}'] = value
                for old, new in (
                    ('attn.out_proj', 'self_attn.out_proj'),
                    ('ln_1', 'layer_norm1'),
                    ('ln_2', 'layer_norm2'),
                    ('mlp.c_fc', 'mlp.fc1'),
                    ('mlp.c_proj', 'mlp.fc2'),
                ):
                    state[f'{target}.{new}.{kind}'] = clip[
                        f'{source}.{old}.{kind}'
                    ]
            block += 1
    state |= {
        'text_model.embeddings.token_embedding.weight': clip[
            'token_embedding.weight'
        ],
        'vision_model.embeddings.class_embedding': clip[
            'visual.class_embedding'
        ],
        'vision_model.embeddings.patch_embedding.weight': clip[
            'visual.conv1.weight'
        ],
        'vision_model.pre_layrnorm.weight': clip['visual.ln_pre.weight'],
        'vision_model.pre_layrnorm.bias': clip['visual.ln_pre.bias'],
        'text_projection.weight': clip['text_projection'].T,
        'visual_projection.weight': clip['visual.proj'].T,
    }
    return state


def model_config(method: str, width: int = EMBED_DIM) -> dict[str, Any]:
    """Config of our model of a method, with a tiny CLIP."""
    sizes = dict(embed_dim=width, num_frames=NUM_FRAMES)
    temporal = dict(
        type='TemporalTransformer',
        embed_dim=width,
        num_layers=NUM_BLOCKS,
        max_positions=NUM_FRAMES,
    )
    lstm = dict(type='TemporalLSTM', embed_dim=width)
    heads: dict[str, dict[str, Any]] = {
        'x_pool': dict(type='XPoolHead', embed_dim=width),
        't_mass': dict(type='TMASSHead', num_trials=4, **sizes),
        'clip4clip_mean': dict(type='MeanPoolingHead'),
        'clip4clip_lstm': dict(type='MeanPoolingHead', temporal=lstm),
        'clip4clip_transformer': dict(
            type='MeanPoolingHead', temporal=temporal
        ),
        'clip4clip_tight': dict(
            type='CrossTransformerHead', num_layers=NUM_BLOCKS, **sizes
        ),
        'ts2_net': dict(
            type='TS2NetHead',
            num_patches=NUM_PATCHES,
            num_samples=5,
            num_layers=NUM_BLOCKS,
            **sizes,
        ),
        'wti': dict(type='WTIHead', temporal=temporal, **sizes),
    }
    loss = dict(type='InfoNCELoss')
    if method == 'clip4clip_tight':
        loss = dict(type='InfoNCELoss', init_scale=1, learnable=False)
    return dict(
        type='TextVideoRetriever',
        text_encoder=dict(
            type='CLIPTextEncoder',
            arch=tiny_arch(embed_dim=width),
            max_words=MAX_WORDS,
            output_tokens=method == 'wti',
        ),
        video_encoder=dict(
            type='CLIPVideoEncoder',
            arch=tiny_arch(embed_dim=width),
            shift_layers=SHIFTED_LAYERS if method == 'ts2_net' else (),
            output_patches=method == 'ts2_net',
        ),
        head=dict(**heads[method], loss_match=loss),
    )
