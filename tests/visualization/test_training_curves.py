from __future__ import annotations

import json
from pathlib import Path

import pytest

from eaglenet_mm.visualization.training_curves import read_curves


def log(folder: Path, run: str, *records: object) -> None:
    path = folder / run / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = [x if isinstance(x, str) else json.dumps(x) for x in records]
    path.write_text('\n'.join(lines))


def train(iteration: int, loss: float) -> dict:
    return {'loss': loss, 'loss_match': loss / 2, 'lr': 1, 'iter': iteration}


def val(recall: float) -> dict:
    return {'t2v/R1': recall, 'v2t/R1': recall + 1, 'step': 3, 'time': 0.1}


def test_curves_of_a_run(tmp_path) -> None:
    log(tmp_path, '1', train(10, 4.0), train(20, 3.0), val(30), train(30, 2.0))
    curves = read_curves(str(tmp_path / 'best.pth'))
    assert curves.losses == {
        'loss': [[10, 4.0], [20, 3.0], [30, 2.0]],
        'loss_match': [[10, 2.0], [20, 1.5], [30, 1.0]],
    }
    assert curves.recalls == {'t2v/R1': [[20, 30]], 'v2t/R1': [[20, 31]]}
    assert curves.note == f'From the log of one run in {tmp_path}.'


def test_a_resumed_run_overwrites(tmp_path) -> None:
    log(tmp_path, '1', *(train(i, i) for i in (10, 20, 30, 40)), val(9))
    log(tmp_path, '2', train(20, 7.0), val(5))
    curves = read_curves(str(tmp_path / 'best.pth'))
    assert curves.losses['loss'] == [[10, 10], [20, 7.0]]
    assert curves.recalls['t2v/R1'] == [[20, 5]]
    assert '2 runs' in curves.note


def test_broken_lines_and_other_logs_do_not_matter(tmp_path) -> None:
    broken = {**train(20, 1.0), 'loss': float('nan')}
    log(tmp_path, '1', val(50), '{"loss": 4', '7', train(10, 4.0), broken)
    curves = read_curves(str(tmp_path / 'best.pth'))
    assert curves.losses['loss'] == [[10, 4.0]]
    assert curves.recalls == {}  # a test alone has no iteration


def test_long_curves_are_thinned(tmp_path) -> None:
    log(tmp_path, '1', *(train(i, i) for i in range(1, 5001)))
    points = read_curves(str(tmp_path / 'best.pth')).losses['loss']
    assert len(points) == 400
    assert points[0] == [1, 1]
    assert points[-1] == [5000, 5000]
    assert points == sorted(points)


@pytest.mark.parametrize(
    ('checkpoint', 'said'),
    [
        (None, 'as it was initialised'),
        ('https://example.org/best.pth', 'is a URL'),
        ('{folder}/best.pth', 'lies beside the checkpoint, in {folder}'),
    ],
)
def test_a_missing_log_is_told(checkpoint, said, tmp_path) -> None:
    folder = str(tmp_path)
    if checkpoint is not None:
        checkpoint = checkpoint.format(folder=folder)
    curves = read_curves(checkpoint)
    assert curves.losses == curves.recalls == {}
    assert curves.note.startswith('No training log: ')
    assert said.format(folder=folder) in curves.note
