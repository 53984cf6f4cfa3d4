"""Token ids of the release, for every sentence of ``tokenizer.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets.transforms import CLIPTokenizer


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> dict[str, Any]:
    file = golden_dir / 'tokenizer.json'
    if not file.is_file():
        pytest.skip(f'{golden_dir} holds no tokenizer.json')
    return json.loads(file.read_text(encoding='utf-8'))


def test_ids_equal_the_release(
    golden: dict[str, Any], golden_report: Callable
) -> None:
    tokenizer = CLIPTokenizer()
    assert golden['meta']['n'] == len(golden['sentences']) > 0
    for sentence in golden['sentences']:
        lengths = [
            int(key.removeprefix('input_ids_'))
            for key in sentence
            if re.fullmatch(r'input_ids_\d+', key)
        ]
        assert lengths
        for length in lengths:
            expected = sentence[f'input_ids_{length}']
            expected = expected + [0] * (length - len(expected))
            got = tokenizer([sentence['text']], length)[0]
            golden_report(f'tokenizer/input_ids_{length}', got, expected, 0.0)


def test_ids_without_special_tokens(
    golden: dict[str, Any], golden_report: Callable
) -> None:
    tokenizer = CLIPTokenizer()
    for sentence in golden['sentences']:
        count = sentence['n_tokens']
        got = tokenizer([sentence['text']], count + 2)[0]
        golden_report(
            'tokenizer/token_ids', got[1:-1], sentence['token_ids'], 0.0
        )


def test_special_ids(golden: dict[str, Any]) -> None:
    meta = golden['meta']
    assert CLIPTokenizer.vocab_size == meta['vocab_size']
    assert CLIPTokenizer.start_id == meta['sot']
    assert CLIPTokenizer.end_id == meta['eot']
