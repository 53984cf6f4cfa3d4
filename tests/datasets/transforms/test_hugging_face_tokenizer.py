"""Tokenizers of Hugging Face, real ones where transformers is there."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch

from eaglenet_mm.datasets.transforms import (
    HuggingFaceTokenizer,
    TokenizeCaptions,
)
from tests.models.encoders.stand_in_transformers import stand_in

HAS_TRANSFORMERS = importlib.util.find_spec('transformers') is not None
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'red', 'square']


def write_tokenizer(path: Path, words: list[str]) -> str:
    """Write a tokenizer.json of whole words."""
    vocabulary = {word: number for number, word in enumerate(words)}
    content = dict(
        version='1.0',
        added_tokens=[],
        pre_tokenizer=dict(type='Whitespace'),
        post_processor=dict(
            type='BertProcessing',
            sep=['[SEP]', vocabulary['[SEP]']],
            cls=['[CLS]', vocabulary['[CLS]']],
        ),
        model=dict(type='WordLevel', vocab=vocabulary, unk_token='[UNK]'),
    )
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture(
    params=[
        'stand-in',
        pytest.param(
            'transformers',
            marks=pytest.mark.skipif(
                not HAS_TRANSFORMERS, reason='needs transformers'
            ),
        ),
    ]
)
def library(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == 'stand-in':
        monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    return request.param


def test_sentences(library: str, tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / 'tokenizer.json', WORDS)
    transform = TokenizeCaptions(
        dict(type='HuggingFaceTokenizer', path=path, clean='lower'),
        max_words=5,
    )
    captions = ['A red', 'a red square a red', 'blue']
    ids = transform(dict(captions=captions))['token_ids']
    assert ids.dtype == torch.int64
    assert ids.tolist() == [
        [2, 4, 5, 3, 0],
        [2, 4, 5, 6, 3],
        [2, 1, 3, 0, 0],
    ]
    tokenizer = transform.tokenizer
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (0, len(WORDS))
    assert "clean='lower'" in repr(transform)
    if library == 'transformers':  # workers of a loader may get it pickled
        again = pickle.loads(pickle.dumps(tokenizer))
        assert torch.equal(again(captions, 5), ids)


def test_folder(library: str, tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / 'tokenizer.json', WORDS)
    if library == 'transformers':
        from transformers import PreTrainedTokenizerFast

        PreTrainedTokenizerFast(
            tokenizer_file=path, pad_token='[PAD]', unk_token='[UNK]'
        ).save_pretrained(tmp_path)
    tokenizer = HuggingFaceTokenizer(str(tmp_path))
    assert tokenizer(['a square'], 5).tolist() == [[2, 4, 6, 3, 0]]


def test_padding_token(library: str, tmp_path: Path) -> None:
    words = WORDS[1:]
    path = write_tokenizer(tmp_path / 'tokenizer.json', words)
    with pytest.raises(ValueError, match='no padding token'):
        HuggingFaceTokenizer(path)
    tokenizer = HuggingFaceTokenizer(path, pad_token='[SEP]')
    assert tokenizer.pad_id == words.index('[SEP]')


def test_bad_options(library: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='there is none'):
        HuggingFaceTokenizer(str(tmp_path / 'absent'))
    with pytest.raises(ValueError, match="got 'upper'"):
        HuggingFaceTokenizer(str(tmp_path), clean='upper')


def test_missing_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"eaglenet_mm\[huggingface\]'"):
        HuggingFaceTokenizer('folder')
