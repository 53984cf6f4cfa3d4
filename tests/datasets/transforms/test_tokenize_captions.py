from __future__ import annotations

import pytest

from eaglenet_mm.datasets import CLIPTokenizer, TokenizeCaptions, WordTokenizer


def test_default_is_clip() -> None:
    transform = TokenizeCaptions(max_words=5)
    results = transform(dict(captions=['a man', 'two men']))
    assert results['token_ids'].shape == (2, 5)
    assert results['token_ids'][0].tolist() == [49406, 320, 786, 49407, 0]
    assert repr(transform) == (
        'TokenizeCaptions(tokenizer=CLIPTokenizer(), max_words=5)'
    )


@pytest.mark.parametrize(
    'tokenizer',
    [dict(type='WordTokenizer', vocabulary=['a']), WordTokenizer(['a'])],
)
def test_another_tokenizer(tokenizer: dict | WordTokenizer) -> None:
    transform = TokenizeCaptions(tokenizer, max_words=4)
    results = transform(dict(captions=['a']))
    assert results['token_ids'].tolist() == [[3, 2, 4, 0]]


def test_too_short() -> None:
    with pytest.raises(ValueError, match='at least 2, but got 1'):
        TokenizeCaptions(CLIPTokenizer(), max_words=1)
