"""Evaluation noise is part of a checkpoint; its size is part of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import load_checkpoint

from tests.models.every_head import build

OPTIONS = [
    ('TMASSHead', 'num_trials', 3, 5),
    ('TS2NetHead', 'num_samples', 20, 6),
    ('EagleNetHead', 'num_candidates', 4, 7),
]


@pytest.mark.parametrize(('name', 'option', 'theirs', 'ours'), OPTIONS)
def test_another_number_is_named(
    name: str, option: str, theirs: int, ours: int, tmp_path: Path
) -> None:
    trained = build(name, '')
    file = str(tmp_path / 'head.pth')
    torch.save(dict(state_dict=trained.state_dict()), file)
    other: Any = build(name, '', **{option: ours})
    message = (
        f'{option}={theirs}, but {name} was built with {option}={ours}: '
        f'set model.head.{option}={theirs}'
    )
    for load in (
        lambda: other.load_state_dict(trained.state_dict()),
        lambda: load_checkpoint(other, file, strict=True),
    ):
        with pytest.raises(RuntimeError, match=message) as info:
            load()
        assert 'size mismatch' not in str(info.value)
    # the same number is taken, and nothing that was given is changed
    load_checkpoint(build(name, ''), file, strict=True)


def test_noise_that_was_asked_for_is_kept() -> None:
    trained = build('EagleNetHead', '')
    other: Any = build('EagleNetHead', '', num_candidates=7, noise_seed=1)
    table = other.noise_table.clone()
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other.noise_table, table)


def test_another_width_is_an_error_of_the_usual_form() -> None:
    trained = build('TMASSHead', '')
    other = build('TMASSHead', '', embed_dim=8)
    with pytest.raises(RuntimeError, match='size mismatch for noise_table'):
        other.load_state_dict(trained.state_dict())
