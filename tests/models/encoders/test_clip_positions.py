"""Position embeddings of another size: on request, or refused."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

from eaglenet_mm.models.converters import convert_baseline_release
from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    RegisteredTextEncoder,
)
from eaglenet_mm.models.encoders.clip_weights import (
    resize_grid,
    stretch_rows,
)
from eaglenet_mm.registry import MODELS
from tests.models.converters.baseline_checkpoint import to_hugging_face
from tests.models.encoders.tiny_clip import reference_clip, tiny_arch

TABLE = 'tower.positional_embedding'


def start_weights(tmp_path: Any, **changes: Any) -> str:
    torch.save(reference_clip(**changes).state_dict(), tmp_path / 'clip.pt')
    return str(tmp_path / 'clip.pt')


def long_clip(table: Tensor) -> Tensor:
    """From 77 to 248 rows, place by place after the paper's formula."""
    rows = []
    for place in range(248):
        if place < 20:
            rows.append(table[place])
            continue
        steps, rest = divmod(place - 20, 4)
        low = min(20 + steps, 75)
        share = 20 + steps + rest / 4 - low
        rows.append(table[low] + share * (table[low + 1] - table[low]))
    return torch.stack(rows)


def test_text_positions_stretch_as_in_long_clip() -> None:
    table = torch.randn(77, 6)
    stretched = stretch_rows(table, 248)
    torch.testing.assert_close(stretched, long_clip(table))
    assert torch.equal(stretched[:20], table[:20])
    assert torch.equal(stretched[20:248:4], table[20:])


@pytest.mark.parametrize('rows', [78, 100, 154])
def test_a_straight_table_stays_straight(rows: int) -> None:
    """Places lie closer by one factor, also beyond the last row."""
    table = torch.arange(77.0).unsqueeze(1)
    rest = stretch_rows(table, rows)[20:, 0]
    expected = 20 + torch.arange(rows - 20) * 57 / (rows - 20)
    torch.testing.assert_close(rest, expected)


def test_short_tables_keep_the_same_share() -> None:
    table = torch.randn(9, 4)
    stretched = stretch_rows(table, 16)
    assert torch.equal(stretched[:2], table[:2])
    torch.testing.assert_close(stretched[2::2], table[2:])
    torch.testing.assert_close(stretched[3], (table[2] + table[3]) / 2)
    with pytest.raises(ValueError, match='at least 3 rows, but got 2'):
        stretch_rows(table[:2], 4)


def test_half_precision_stays() -> None:
    assert stretch_rows(torch.randn(30, 4).half(), 40).dtype == torch.float16
    assert resize_grid(torch.randn(5, 4).half(), (3, 3)).dtype == torch.float16


@pytest.mark.parametrize('size', [(4, 4), (2, 5), (2, 2), (6, 3)])
def test_grid_equals_open_clip(size: tuple[int, int]) -> None:
    sides = [4 * side for side in size]
    model = open_clip.model.CLIP(**tiny_arch(vision_cfg__image_size=sides))
    table = torch.randn(10, 64)
    state = {'visual.positional_embedding': table}
    resize_pos_embed(state, model)
    resized = resize_grid(table, size)
    torch.testing.assert_close(resized, state['visual.positional_embedding'])
    assert torch.equal(resized[0], table[0])


@pytest.mark.parametrize('sides', [16, (8, 20)])
def test_start_weights_of_another_resolution(
    tmp_path: Any, sides: int | tuple[int, int]
) -> None:
    path = start_weights(tmp_path)
    grid = (4, 4) if sides == 16 else (2, 5)
    need = 1 + grid[0] * grid[1]
    options = dict(image_size=sides, shift_layers=())
    with pytest.raises(
        ValueError, match=rf'10 rows, but images .* {need},.*resize_positions'
    ):
        CLIPVideoEncoder(tiny_arch(), path, **options)
    encoder = CLIPVideoEncoder(
        tiny_arch(), path, resize_positions=True, **options
    )
    weights = torch.load(path, weights_only=True)
    torch.testing.assert_close(
        encoder.tower.positional_embedding.data,
        resize_grid(weights['visual.positional_embedding'], grid),
    )
    height, width = encoder.image_size
    frames = encoder(torch.randn(1, 2, 3, height, width)).frames
    assert frames.shape == (1, 2, 16)
    assert frames.isfinite().all()


def test_start_weights_with_too_few_words(tmp_path: Any) -> None:
    path = start_weights(tmp_path)
    with pytest.raises(
        ValueError, match=r'9 rows, but max_words=12.*resize_positions=True'
    ):
        CLIPTextEncoder(tiny_arch(), path, max_words=12)
    encoder = CLIPTextEncoder(
        tiny_arch(), path, max_words=12, resize_positions=True
    )
    table = torch.load(path, weights_only=True)['positional_embedding']
    expected = stretch_rows(table, 12)
    assert torch.equal(encoder.tower.positional_embedding.data, expected)
    ids = torch.tensor([[1, *10 * [3], 39]])
    assert encoder(ids).embeds.isfinite().all()


def test_towers_of_registered_encoders(tmp_path: Any) -> None:
    path = start_weights(tmp_path)
    backbone = dict(type='open_clip', arch=tiny_arch(), pretrained=path)
    with pytest.raises(ValueError, match=r'max_words=12 needs 12'):
        RegisteredTextEncoder(backbone, max_words=12)
    backbone['resize_positions'] = True
    encoder = RegisteredTextEncoder(backbone, max_words=12)
    table = torch.load(path, weights_only=True)['positional_embedding']
    assert torch.equal(
        encoder.tower.positional_embedding.data, stretch_rows(table, 12)
    )


def own_checkpoint() -> dict[str, Tensor]:
    video = CLIPVideoEncoder(tiny_arch(), shift_layers=())
    text = CLIPTextEncoder(tiny_arch())
    return {
        **{f'video_encoder.{k}': v for k, v in video.state_dict().items()},
        **{f'text_encoder.{k}': v for k, v in text.state_dict().items()},
    }


def retriever(**options: Any) -> Any:
    return MODELS.build(
        dict(
            type='TextVideoRetriever',
            text_encoder=dict(
                type='CLIPTextEncoder',
                arch=tiny_arch(),
                max_words=12,
                **options,
            ),
            video_encoder=dict(
                type='CLIPVideoEncoder',
                arch=tiny_arch(),
                image_size=(8, 16),
                shift_layers=(),
                **options,
            ),
            head=dict(type='MeanPoolingHead'),
        )
    )


def test_checkpoints_of_ours() -> None:
    state = own_checkpoint()
    before = {name: value.clone() for name, value in state.items()}
    with pytest.raises(RuntimeError, match='max_words=12') as caught:
        retriever().load_state_dict(state)
    assert '8 x 16 pixels need 9' in str(caught.value)
    model = retriever(resize_positions=True)
    model.load_state_dict(state)
    assert torch.equal(
        model.text_encoder.tower.positional_embedding.data,
        stretch_rows(state[f'text_encoder.{TABLE}'], 12),
    )
    torch.testing.assert_close(
        model.video_encoder.tower.positional_embedding.data,
        resize_grid(state[f'video_encoder.{TABLE}'], (2, 4)),
    )
    for name, value in state.items():  # of the caller, left as it is
        assert torch.equal(value, before[name])
    model.load_state_dict(model.state_dict())
    shorter = CLIPTextEncoder(tiny_arch(), max_words=4, resize_positions=True)
    prefix = 'text_encoder.'
    shorter.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
    )
    assert torch.equal(
        shorter.tower.positional_embedding.data, state[prefix + TABLE][:4]
    )


def test_hugging_faces_checkpoint_through_the_converter() -> None:
    clip = reference_clip().state_dict()
    source = to_hugging_face(clip)
    with pytest.raises(ValueError, match='of another shape'):
        convert_baseline_release(
            source,
            'clip4clip_mean',
            model=retriever(),
            initialise_from_clip=True,
        )
    ours, report = convert_baseline_release(
        source,
        'clip4clip_mean',
        model=retriever(resize_positions=True),
        initialise_from_clip=True,
    )
    assert torch.equal(
        ours[f'text_encoder.{TABLE}'],
        stretch_rows(clip['positional_embedding'], 12),
    )
    torch.testing.assert_close(
        ours[f'video_encoder.{TABLE}'],
        resize_grid(clip['visual.positional_embedding'], (2, 4)),
    )
    assert any('resized' in line for line in report.lines())


def test_grids_that_are_not_square(tmp_path: Any) -> None:
    path = start_weights(tmp_path, vision_cfg__image_size=(8, 12))
    with pytest.raises(ValueError, match=r'square grid.*but got 7 rows'):
        CLIPVideoEncoder(
            tiny_arch(), path, resize_positions=True, shift_layers=()
        )


@pytest.mark.parametrize('size', [0, 13, (8,), (8, 9), 'big'])
def test_sizes_hold_whole_patches(size: Any) -> None:
    with pytest.raises(ValueError, match='multiples of the patch size 4'):
        CLIPVideoEncoder(tiny_arch(), image_size=size, shift_layers=())
