"""Tokenizers, from captions to token ids."""

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from eaglenet_mm.registry import SCOPE, TOKENIZERS, TRANSFORMS

_SPECIAL_TOKENS = {
    '<start_of_text>': '<|startoftext|>',
    '<end_of_text>': '<|endoftext|>',
}


def _check_max_words(max_words: int) -> None:
    """Refuse a length that cannot hold the start and end tokens."""
    if max_words < 2:
        raise ValueError(
            'max_words counts the start and the end token and must be at '
            f'least 2, but got {max_words}. Set it to the context_length of '
            'the text encoder.'
        )


@lru_cache(maxsize=1)
def _clip_bpe() -> Any:
    """Build CLIP's tokenizer, once per process."""
    # slow to import (torchvision, timm), so imported late
    import regex
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    pattern = tokenizer.pat.pattern
    # open_clip renamed CLIP's special tokens: a caption that contains one
    # literally would get other ids than in the release
    for theirs, clips in _SPECIAL_TOKENS.items():
        tokenizer.encoder[clips] = tokenizer.encoder.pop(theirs)
        tokenizer.cache[clips] = clips
        pattern = pattern.replace(theirs, regex.escape(clips))
    tokenizer.pat = regex.compile(pattern, regex.IGNORECASE)
    return tokenizer


@TOKENIZERS.register_module()
class CLIPTokenizer:
    """CLIP's byte pair encoding, from open_clip.

    Repairs broken Unicode, unescapes HTML, lowercases and collapses white
    space. The ids are a start token, at most ``max_words - 2`` subwords, an
    end token, and zeros. The end token has the largest id, so the text tower
    finds it by argmax. As in the release, 0 is both padding and the id of
    ``!``, and a special token written out in a sentence, such as
    ``<|endoftext|>``, is encoded as that token.

    Attributes:
        vocab_size (int): 49408.
        start_id (int): 49406.
        end_id (int): 49407.

    Example:
        >>> CLIPTokenizer()(['A dog.'], 6)
        tensor([[49406,   320,  1929,   269, 49407,     0]])
    """

    vocab_size = 49408
    start_id = 49406
    end_id = 49407

    def __init__(self) -> None:
        _clip_bpe()  # before workers fork, so that they share it

    def __call__(self, sentences: Sequence[str], max_words: int) -> Tensor:
        """Encode sentences.

        Args:
            sentences (Sequence[str]): ``C`` sentences, possibly empty.
            max_words (int): Length ``L`` of the result, including start and
                end tokens.

        Returns:
            Tensor: Token ids, int64, shape ``(C, L)``.

        Raises:
            ValueError: If ``max_words`` is less than 2.
        """
        _check_max_words(max_words)
        return _clip_bpe()(list(sentences), context_length=max_words)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TOKENIZERS.register_module()
class WordTokenizer:
    """Tokenizer of whole words from a short list, for tiny text towers.

    With CLIP's 49408 tokens, a tiny text tower is mostly embeddings. Words are
    lowercase runs of letters, digits and apostrophes; punctuation is
    dropped. Id 0 is padding, 1 an unknown word, then come the words in list
    order, the start token and the end token, which must have the largest id
    (see :class:`CLIPTokenizer`).

    Args:
        vocabulary (Sequence[str] | str | PathLike): The words, or a UTF-8
            text file with one word per line.
        unknown (str): Treatment of other words: ``'error'`` raises,
            ``'token'`` encodes them as id 1. Default: 'token'.

    Attributes:
        vocab_size (int): Number of words plus 4.
        start_id (int): ``vocab_size - 2``.
        end_id (int): ``vocab_size - 1``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the list is empty or has duplicates or entries that are
            not one lowercase word, or ``unknown`` is invalid.

    Example:
        >>> WordTokenizer(['red', 'square'])(['A red square.'], 6)
        tensor([[4, 1, 2, 3, 5, 0]])
    """

    _WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

    def __init__(
        self,
        vocabulary: Sequence[str] | str | os.PathLike[str],
        *,
        unknown: str = 'token',
    ) -> None:
        if unknown not in ('error', 'token'):
            raise ValueError(
                f"unknown must be 'error' or 'token', but got {unknown!r}. "
                'Change it in the config of WordTokenizer.'
            )
        if isinstance(vocabulary, str | os.PathLike):
            vocabulary = _read_words(Path(vocabulary))
        words = list(vocabulary)
        bad = [
            word
            for word in words
            if word != word.lower() or not self._WORD.fullmatch(word)
        ]
        if not words or bad or len(set(words)) < len(words):
            raise ValueError(
                'WordTokenizer expects a list of distinct lowercase words, '
                f'but got {len(words)} entries, of which {len(set(words))} '
                f'differ and {bad[:5]} are not words. Correct the list.'
            )
        self.unknown = unknown
        self._ids = {word: number + 2 for number, word in enumerate(words)}
        self.start_id = len(words) + 2
        self.end_id = len(words) + 3
        self.vocab_size = len(words) + 4

    def unknown_words(self, words: Sequence[str]) -> list[str]:
        """List the words, in lower case, that are not in the vocabulary."""
        return [word for word in words if word not in self._ids]

    def __call__(self, sentences: Sequence[str], max_words: int) -> Tensor:
        """Encode sentences; see :meth:`CLIPTokenizer.__call__`.

        Raises:
            ValueError: If ``max_words`` is less than 2.
            KeyError: If a word is unknown and ``unknown='error'``.
        """
        _check_max_words(max_words)
        token_ids = torch.zeros(len(sentences), max_words, dtype=torch.int64)
        for row, sentence in zip(token_ids, sentences, strict=True):
            words = self._encode(sentence)[: max_words - 2]
            ids = [self.start_id, *words, self.end_id]
            row[: len(ids)] = torch.tensor(ids)
        return token_ids

    def _encode(self, sentence: str) -> list[int]:
        words = self._WORD.findall(sentence.lower())
        if self.unknown == 'error':
            strange = [word for word in words if word not in self._ids]
            if strange:
                raise KeyError(
                    f'{strange[:5]} in {sentence[:80]!r} are not among the '
                    f'{len(self._ids)} words of WordTokenizer. Add them to '
                    "its vocabulary, or set unknown='token'."
                )
        return [self._ids.get(word, 1) for word in words]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self._ids)} words)'


def _read_words(path: Path) -> list[str]:
    """Read a file with one word per line."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Vocabulary '{path}' does not exist. WordTokenizer needs a text "
            'file with one word per line; check the path, which is relative '
            'to the working directory.'
        )
    return path.read_text(encoding='utf-8-sig').split()


@TRANSFORMS.register_module()
class TokenizeCaptions(BaseTransform):
    """Encode the captions of an item.

    Reads ``captions`` (list of ``C`` strings), adds ``token_ids`` (Tensor,
    int64, shape ``(C, max_words)``).

    Args:
        tokenizer (dict | Callable): Tokenizer or its config. Default:
            ``dict(type='CLIPTokenizer')``.
        max_words (int): Length of the token ids, including start and end
            tokens; the ``context_length`` of the text encoder. Default: 32.

    Raises:
        ValueError: If ``max_words`` is less than 2.

    Example:
        >>> words = dict(type='WordTokenizer', vocabulary=['red', 'square'])
        >>> tokenize = TokenizeCaptions(words, max_words=5)
        >>> tokenize(dict(captions=['A red square.']))['token_ids']
        tensor([[4, 1, 2, 3, 5]])
    """

    def __init__(
        self,
        tokenizer: dict | Callable[..., Tensor] | None = None,
        max_words: int = 32,
    ) -> None:
        if tokenizer is None:
            tokenizer = dict(type='CLIPTokenizer')
        if isinstance(tokenizer, dict):
            tokenizer = TOKENIZERS.build({'_scope_': SCOPE, **tokenizer})
        _check_max_words(max_words)
        self.tokenizer = cast(Callable[..., Tensor], tokenizer)
        self.max_words = max_words

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Encode the captions of an item."""
        captions = results['captions']
        # some tokenizers reject an empty list
        rows = self.tokenizer(captions or ['none'], self.max_words)
        results['token_ids'] = rows[: len(captions)]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(tokenizer={self.tokenizer}, '
            f'max_words={self.max_words})'
        )
