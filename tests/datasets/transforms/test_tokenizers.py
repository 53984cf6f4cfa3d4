from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from eaglenet_mm.datasets import CLIPTokenizer, WordTokenizer
from eaglenet_mm.registry import TOKENIZERS

WORDS = ['a', 'red', 'square', "it's"]


def test_clip_ids() -> None:
    ids = CLIPTokenizer()(['a man is playing a guitar', 'A  MAN'], 10)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [
        [49406, 320, 786, 533, 1629, 320, 5084, 49407, 0, 0],
        [49406, 320, 786, 49407, 0, 0, 0, 0, 0, 0],
    ]


def test_clip_special_tokens_as_words() -> None:
    ids = CLIPTokenizer()(['<|endoftext|> a <|StartOfText|>'], 6)
    assert ids.tolist() == [[49406, 49407, 320, 49406, 49407, 0]]
    # other spellings are ordinary text
    [row] = CLIPTokenizer()(['<end_of_text>'], 12).tolist()
    assert row.count(49407) == 1


@pytest.mark.parametrize(
    'tokenizer', [CLIPTokenizer(), WordTokenizer(WORDS)], ids=repr
)
class TestEveryTokenizer:
    def test_long_caption_is_cut_and_ends(self, tokenizer) -> None:
        ids = tokenizer([' '.join(['red'] * 500)], 32)
        assert ids.shape == (1, 32)
        assert ids[0, 0] == tokenizer.start_id
        assert ids[0, -1] == tokenizer.end_id
        assert (ids == tokenizer.end_id).sum() == 1
        assert len(ids[0, 1:-1].unique()) == 1

    def test_empty_caption(self, tokenizer) -> None:
        assert tokenizer([''], 4).tolist() == [
            [tokenizer.start_id, tokenizer.end_id, 0, 0]
        ]

    def test_end_token_has_the_largest_id(self, tokenizer) -> None:
        assert tokenizer.end_id == tokenizer.vocab_size - 1
        ids = tokenizer(['a red square', 'strange words'], 9)
        assert ids.max() == tokenizer.end_id
        assert ids.argmax(dim=1).tolist()[0] == 4

    def test_too_short(self, tokenizer) -> None:
        with pytest.raises(ValueError, match='at least 2, but got 1'):
            tokenizer(['a'], 1)

    def test_travels_to_workers(self, tokenizer) -> None:
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert torch.equal(copy(['a red'], 6), tokenizer(['a red'], 6))


def test_words() -> None:
    tokenizer = WordTokenizer(WORDS)
    assert tokenizer.vocab_size == 8
    ids = tokenizer(["It's, a RED square!", 'blue'], 7)
    assert ids.tolist() == [[6, 5, 2, 3, 4, 7, 0], [6, 1, 7, 0, 0, 0, 0]]
    assert repr(tokenizer) == 'WordTokenizer(4 words)'


def test_unknown_words_can_be_errors() -> None:
    tokenizer = WordTokenizer(WORDS, unknown='error')
    assert tokenizer(['a red square'], 5).shape == (1, 5)
    with pytest.raises(KeyError, match=r"\['blue'\] in 'a blue square'"):
        tokenizer(['a blue square'], 5)


def test_words_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'words.txt'
    path.write_text('a\nred\nsquare\nmädchen\n', encoding='utf-8')
    tokenizer = TOKENIZERS.build(
        dict(type='WordTokenizer', vocabulary=str(path))
    )
    assert tokenizer(['Mädchen'], 3).tolist() == [[6, 5, 7]]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt' does not exist"):
        WordTokenizer(str(tmp_path / 'none.txt'))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'got 0'),
        (['a', 'a'], 'got 2 entries, of which 1 differ'),
        (['Red'], r"\['Red'\] are not words"),
        (['two words'], r"\['two words'\]"),
    ],
)
def test_bad_lists(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordTokenizer(words)


def test_bad_unknown() -> None:
    with pytest.raises(ValueError, match="'error' or 'token', but got 'skip'"):
        WordTokenizer(WORDS, unknown='skip')
