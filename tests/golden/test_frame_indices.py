"""Frames chosen by the release, for every case of ``frame_indices.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets.transforms import (
    SampleFrames,
    release_frames,
    release_seeks,
    select_frames,
)

#: Ours for the two variants of the release that cut instead of selecting.
SELECTIONS = {'': 'uniform', 'slice0': 'head', 'slice1': 'tail'}


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> dict[str, Any]:
    file = golden_dir / 'frame_indices.json'
    if not file.is_file():
        pytest.skip(f'{golden_dir} holds no frame_indices.json')
    return json.loads(file.read_text(encoding='utf-8'))


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    return dict(start=case['start'], end=case['end'])


def test_reads_the_frames_of_the_release(
    golden: dict[str, Any], golden_report: Callable
) -> None:
    checked = 0
    for case in golden['cases']:
        if case['error'] is not None:
            # the release stops; ours says why
            with pytest.raises(ValueError, match='Release sampling'):
                release_seeks(
                    case['fps'],
                    case['frame_count'],
                    fps=case['sample_fp'],
                    **arguments(case),
                )
            continue
        seeks = release_seeks(
            case['fps'],
            case['frame_count'],
            fps=case['sample_fp'],
            **arguments(case),
        )
        read = release_frames(
            seeks,
            frame_count=case['frame_count'],
            decodable=case['decodable'],
        )
        assert case['n_read'] == len(read)
        golden_report('frame_indices/read', read, case['read'], 0.0)
        if case['seeks'] is not None:
            # the release stops seeking at the first failed read, and with
            # times seeks to the start once more before that
            extra = 0 if case['start'] is None else 1
            until = case['seeks'][extra:]
            assert len(until) == min(len(seeks), len(read) + 1)
            golden_report(
                'frame_indices/seeks', seeks[: len(until)], until, 0.0
            )
        checked += 1
    assert checked > 0


def test_selects_the_frames_of_the_release(
    golden: dict[str, Any], golden_report: Callable
) -> None:
    selected = refused = 0
    for case in golden['cases']:
        for name, expected in case['selected'].items():
            count, _, variant = name.partition('/')
            sampler = SampleFrames(
                int(count),
                fps=case['sample_fp'],
                selection=SELECTIONS[variant],
            )
            call = dict(decodable=case['decodable'], **arguments(case))
            if expected['error'] is not None or not expected['indices']:
                # the release crashes, or goes on with an all-zero video
                # under an all-zero mask; ours raises in both cases
                with pytest.raises(ValueError, match=r'frame|Release'):
                    sampler.sample(case['fps'], case['frame_count'], **call)
                refused += 1
                continue
            frames = sampler.sample(case['fps'], case['frame_count'], **call)
            golden_report(
                f'frame_indices/selected/{name}',
                frames,
                expected['indices'],
                0.0,
            )
            assert len(frames) == expected['n_valid']
            assert int(count) - len(frames) == expected['n_padded']
            selected += 1
    assert selected + refused > 0


def test_uniform_places(
    golden: dict[str, Any], golden_report: Callable
) -> None:
    for name, places in golden['linspace'].items():
        count, kept = (int(number) for number in name.split('->'))
        got = select_frames(range(count), kept)
        golden_report('frame_indices/linspace', got, places, 0.0)
    assert golden['linspace']
