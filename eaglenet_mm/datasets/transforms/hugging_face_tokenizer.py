"""From sentences to token ids by a tokenizer of Hugging Face."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.registry import TOKENIZERS

CLEANINGS = ('canonicalize', 'lower', 'whitespace')


@TOKENIZERS.register_module()
class HuggingFaceTokenizer:
    """Encode by a tokenizer of the library transformers.

    Special tokens are those of the tokenizer; sentences are cut and padded
    to the length asked for, padding comes after the sentence. For
    ``HuggingFaceTextEncoder`` (give its ``pad_id`` the tokenizer's, if its
    config has none), and for SigLIP's towers with ``clean='canonicalize'``.

    Args:
        path (str): A local folder with a tokenizer, or its
            ``tokenizer.json``. Nothing is downloaded.
        clean (str, optional): What open_clip does to sentences before:
            ``'canonicalize'`` (SigLIP), ``'lower'`` or ``'whitespace'``.
            Default: None, nothing.
        pad_token (str, optional): Token that pads. Default: the
            tokenizer's own, or else ``'[PAD]'``, ``'<pad>'`` or ``'</s>'``,
            whichever its vocabulary has.

    Attributes:
        vocab_size (int): Number of ids, added tokens included.
        pad_id (int): Id of padding.

    Raises:
        FileNotFoundError: If the path does not exist.
        ImportError: If transformers is not installed.
        ValueError: If ``clean`` is unknown, or no token can pad.
    """

    def __init__(
        self,
        path: str,
        *,
        clean: str | None = None,
        pad_token: str | None = None,
    ) -> None:
        if clean is not None and clean not in CLEANINGS:
            raise ValueError(
                f'clean must be None or one of {CLEANINGS}, but got {clean!r}.'
            )
        self.path = path
        self.clean = clean
        self._tokenizer = _load(path)
        if pad_token is None:
            pad_token = self._tokenizer.pad_token or self._guess_pad_token()
        self._tokenizer.pad_token = pad_token
        self._tokenizer.padding_side = 'right'
        self._tokenizer.truncation_side = 'right'
        self.pad_id: int = self._tokenizer.pad_token_id
        self.vocab_size: int = len(self._tokenizer)
        self._clean: Callable[[str], str] = str
        if clean is not None:
            from open_clip.tokenizer import get_clean_fn

            self._clean = get_clean_fn(clean)

    def unknown_words(self, words: Sequence[str]) -> list[str]:
        """List the words of which a piece becomes the unknown token."""
        unknown = self._tokenizer.unk_token_id
        if unknown is None:
            return []
        encoded = [
            self._tokenizer(self._clean(word), add_special_tokens=False)
            for word in words
        ]
        return [
            word
            for word, own in zip(words, encoded, strict=True)
            if unknown in own['input_ids']
        ]

    def __call__(self, sentences: Sequence[str], max_words: int) -> Tensor:
        """Encode ``C`` sentences; int64, shape ``(C, max_words)``."""
        encoded = self._tokenizer(
            [self._clean(sentence) for sentence in sentences],
            padding='max_length',
            truncation=True,
            max_length=max_words,
        )
        return torch.tensor(encoded['input_ids'], dtype=torch.int64)

    def _guess_pad_token(self) -> str:
        """Find a token that pads in one of the usual vocabularies."""
        vocabulary = self._tokenizer.get_vocab()
        for token in ('[PAD]', '<pad>', '</s>'):
            if token in vocabulary:
                return token
        raise ValueError(
            f"The tokenizer of '{self.path}' has no token that pads. Name "
            'one of its vocabulary as pad_token, for example its end token.'
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, clean={self.clean!r})'


def _load(path: str) -> Any:
    """Load a tokenizer from a folder or a file."""
    try:
        found = find_spec('transformers') is not None
    except ValueError:  # a stand-in in sys.modules without a spec
        found = True
    if not found:
        raise ImportError(
            'HuggingFaceTokenizer needs the package transformers, which is '
            "not installed. Install it with: pip install 'eaglenet_mm"
            "[huggingface]'."
        )
    if not osp.exists(path):
        raise FileNotFoundError(
            f"HuggingFaceTokenizer expects path='{path}' to be a local "
            'folder with a tokenizer or its tokenizer.json, but there is '
            'none. Fetch it first, for example by `hf download NAME '
            '--local-dir FOLDER`.'
        )
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if osp.isdir(path):
        return AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    return PreTrainedTokenizerFast(tokenizer_file=path)
