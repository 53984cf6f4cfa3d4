"""Small checkpoints in the form of the EagleNet release, and their models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.models.encoders.tiny_clip import reference_clip, tiny_arch

EMBED_DIM = 16
NUM_FRAMES = 3
NUM_HEADS = 2
MAX_WORDS = 6
REPLAY_SIZE = 5
SHIFTED_LAYERS = (1, 2)


def release_state_dict(
    *,
    graph: str = 'rgat',
    num_layers: int = 2,
    energy: str | None = 'mlp',
    loss: str = 'sig',
    frame_embedding: bool = True,
) -> dict[str, Tensor]:
    """Random weights under the names that golden/README.md lists."""
    width = EMBED_DIM
    state: dict[str, Tensor] = {}
    for name, value in reference_clip().state_dict().items():
        for layer in SHIFTED_LAYERS:
            name = name.replace(
                f'visual.transformer.resblocks.{layer}.attn.',
                f'visual.transformer.resblocks.{layer}.attn.net.',
            )
        state[f'clip.{name}'] = value
    shapes: dict[str, tuple[int, ...]] = {
        'frame_position_embeddings.weight': (9, width),
        'transformerClip.resblocks.0.ln_1.weight': (width,),
        'stochastic.std_branch.learnable_scalar': (1,),
        'stochastic.std_branch.linear_proj.weight': (width, NUM_FRAMES),
        'stochastic.std_branch.linear_proj.bias': (width,),
    }
    for part in ('q', 'k', 'v', 'out'):
        shapes[f'pool_frames.cross_attn.{part}_proj.weight'] = (width, width)
        shapes[f'pool_frames.cross_attn.{part}_proj.bias'] = (width,)
    shapes['pool_frames.linear_proj.weight'] = (width, width)
    shapes['pool_frames.linear_proj.bias'] = (width,)
    for i in (1, 2, 3):
        shapes[f'pool_frames.layer_norm{i}.weight'] = (width,)
        shapes[f'pool_frames.layer_norm{i}.bias'] = (width,)
    if frame_embedding:
        shapes['frame_pe'] = (NUM_FRAMES, width)
    if loss == 'sig':
        shapes['loss_fct.temp_prior'] = (1,)
        shapes['loss_fct.bias'] = (1,)
    shapes |= graph_shapes(graph, num_layers)
    if energy == 'mlp':
        shapes['ebm.energy_net.0.weight'] = (width, 2 * width)
        shapes['ebm.energy_net.0.bias'] = (width,)
        shapes['ebm.energy_net.2.weight'] = (1, width)
        shapes['ebm.energy_net.2.bias'] = (1,)
    elif energy == 'bilinear':
        shapes['ebm.energy_net.weight'] = (width, width)
        shapes['ebm.energy_net.bias'] = (width,)
    if energy:
        shapes['ebm.replay_buffer_vid'] = (REPLAY_SIZE, NUM_FRAMES, width)
        shapes['ebm.replay_buffer_txt'] = (REPLAY_SIZE, width)
    state |= {name: torch.randn(shape) for name, shape in shapes.items()}
    if energy:
        state['ebm.replay_buffer_vid'][3:] = 0
        state['ebm.replay_buffer_txt'][3:] = 0
    return state


def graph_shapes(graph: str, num_layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the graph; one layer is stored as two."""
    shapes: dict[str, tuple[int, ...]] = {}
    stored = max(num_layers, 2)
    relations = [''] if graph == 'gat' else ['.0', '.1', '.2']
    project, suffix = ('lin1', '') if graph == 'gat' else ('lin', '_rels')
    for layer in range(stored):
        is_last = layer == stored - 1
        out = EMBED_DIM if is_last else EMBED_DIM // NUM_HEADS
        prefix = f'gnn.layers.{layer}'
        for relation in relations:
            shapes[f'{prefix}.{project}{suffix}{relation}.weight'] = (
                NUM_HEADS * out,
                EMBED_DIM,
            )
            for side in 'lr':
                shapes[f'{prefix}.att_{side}{suffix}{relation}.weight'] = (
                    1,
                    out,
                )
        if graph == 'rgat':
            shapes[f'{prefix}.lin_out.weight'] = (out, EMBED_DIM)
    return shapes


def model_config(
    *,
    graph: str = 'rgat',
    num_layers: int = 2,
    energy: str | None = 'mlp',
    loss: str = 'sig',
    frame_embedding: bool = True,
) -> dict[str, Any]:
    """Config of our model with the same parts."""
    energies = dict(
        mlp='MLPEnergy', bilinear='BilinearEnergy', cossim='CosineEnergy'
    )
    losses = dict(sig='PairwiseSigmoidLoss', clip='InfoNCELoss')
    head = dict(
        type='EagleNetHead',
        embed_dim=EMBED_DIM,
        num_frames=NUM_FRAMES,
        num_candidates=4,
        graph=dict(type=graph, num_layers=num_layers, num_heads=NUM_HEADS),
        frame_embedding=frame_embedding,
        loss_match=dict(type=losses[loss]),
    )
    if energy:
        head['loss_energy'] = dict(
            type='EnergyMatchingLoss',
            energy=dict(type=energies[energy]),
            sampler=dict(buffer_size=REPLAY_SIZE),
        )
    return dict(
        type='TextVideoRetriever',
        text_encoder=dict(
            type='CLIPTextEncoder', arch=tiny_arch(), max_words=MAX_WORDS
        ),
        video_encoder=dict(
            type='CLIPVideoEncoder',
            arch=tiny_arch(),
            shift_layers=SHIFTED_LAYERS,
        ),
        head=head,
    )
