"""From captions to token ids."""

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
    """Refuse a length that cannot hold the start and the end token."""
    if max_words < 2:
        raise ValueError(
            'max_words counts the start and the end token and must be at '
            f'least 2, but got {max_words}. Set it to the context_length of '
            'the text encoder.'
        )


@lru_cache(maxsize=1)
def _clip_bpe() -> Any:
    """Make CLIP's tokenizer, once a process."""
    # imports torchvision and timm too, so not before it is needed
    import regex
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    pattern = tokenizer.pat.pattern
    # open_clip writes the special tokens otherwise than CLIP: a caption with
    # a literal special token would get other ids than in the release
    for theirs, clips in _SPECIAL_TOKENS.items():
        tokenizer.encoder[clips] = tokenizer.encoder.pop(theirs)
        tokenizer.cache[clips] = clips
        pattern = pattern.replace(theirs, regex.escape(clips))
    tokenizer.pat = regex.compile(pattern, regex.IGNORECASE)
    return tokenizer


@TOKENIZERS.register_module()
class CLIPTokenizer:
    """CLIP's byte pair encoding, by open_clip.

    Repairs broken Unicode, unescapes HTML, lowers the case, collapses white
    space; start token, at most ``max_words - 2`` pieces of words, end token,
    zeros. A longer sentence is cut and keeps its end token. The end token has
    the largest id, so that the text tower finds it by argmax. As in the
    release, 0 pads and is also the id of ``!``, and a special token that is
    written out in a sentence, such as ``<|endoftext|>``, becomes one.

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
        _clip_bpe()  # before workers fork, so that none makes its own

    def __call__(self, sentences: Sequence[str], max_words: int) -> Tensor:
        """Encode sentences.

        Args:
            sentences (Sequence[str]): ``C`` sentences; an empty one gives
                start and end token alone.
            max_words (int): Length ``L`` of the result, start and end token
                included.

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
    """Whole words of a short list, for tiny text towers.

    A text tower for CLIP's 49408 tokens is mostly embedding table; a toy set
    needs some dozens. Words are runs of letters, digits and apostrophes in
    lower case; punctuation is dropped. Ids: 0 pads, 1 is an unknown word,
    then the words in the order of the list, then the start and the end token,
    which must have the largest id (see :class:`CLIPTokenizer`).

    Args:
        vocabulary (Sequence[str] | str | PathLike): The words, or a UTF-8
            text file with one a line.
        unknown (str): What to do with other words: ``'error'`` raises,
            ``'token'`` gives id 1. Default: 'token'.

    Attributes:
        vocab_size (int): Number of words plus 4.
        start_id (int): ``vocab_size - 2``.
        end_id (int): ``vocab_size - 1``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the list is empty, holds a word twice or something
            that is not one word, or ``unknown`` is not allowed.

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
                'WordTokenizer expects a list of different words in lower '
                f'case, but got {len(words)}, of which {len(set(words))} '
                f'differ and {bad[:5]} are no such words. Correct the list.'
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
        """Encode the words of one sentence."""
        words = self._WORD.findall(sentence.lower())
        if self.unknown == 'error':
            strange = [word for word in words if word not in self._ids]
            if strange:
                raise KeyError(
                    f'{strange[:5]} of {sentence[:80]!r} are not among the '
                    f'{len(self._ids)} words of WordTokenizer. Add them to '
                    "its vocabulary, or set unknown='token'."
                )
        return [self._ids.get(word, 1) for word in words]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self._ids)} words)'


def _read_words(path: Path) -> list[str]:
    """Read a file with one word a line."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Vocabulary '{path}' does not exist. WordTokenizer needs a text "
            'file with one word a line; check the path, which counts from '
            'where the command is started.'
        )
    return path.read_text(encoding='utf-8-sig').split()


@TRANSFORMS.register_module()
class TokenizeCaptions(BaseTransform):
    """Encode the captions of an item.

    Takes ``captions`` (list of ``C`` strings), adds ``token_ids`` (Tensor,
    int64, shape ``(C, max_words)``).

    Args:
        tokenizer (dict | Callable): Tokenizer or its config. Default:
            ``dict(type='CLIPTokenizer')``.
        max_words (int): Length of the token ids, start and end token
            included, the ``context_length`` of the text encoder. Default:
            32.

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
        # not every tokenizer takes an empty list, and knows its shape then
        rows = self.tokenizer(captions or ['none'], self.max_words)
        results['token_ids'] = rows[: len(captions)]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(tokenizer={self.tokenizer}, '
            f'max_words={self.max_words})'
        )
