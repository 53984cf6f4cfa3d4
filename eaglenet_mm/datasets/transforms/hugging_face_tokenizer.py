"""Tokenizers of Hugging Face transformers."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.registry import TOKENIZERS
from eaglenet_mm.utils.downloads import DownloadError, fetch_from_hub

_HUB = 'hf-hub:'
_FILES = ('tokenizer_config.json', 'tokenizer.json')
CLEANINGS = ('canonicalize', 'lower', 'whitespace')


@TOKENIZERS.register_module()
class HuggingFaceTokenizer:
    """Tokenizer of the transformers library.

    It adds its own special tokens; sentences are truncated and right-padded
    to the given length. Use it with ``HuggingFaceTextEncoder`` (set the
    encoder's ``pad_id`` if its config has none), and with
    ``clean='canonicalize'`` for SigLIP.

    Args:
        path (str): Local tokenizer folder or ``tokenizer.json``, or
            ``'hf-hub:OWNER/NAME'``, which is downloaded unless cached.
        clean (str, optional): Cleaning of open_clip to apply first:
            ``'canonicalize'`` (SigLIP), ``'lower'`` or ``'whitespace'``.
            Default: None.
        pad_token (str, optional): Padding token. Default: None, the
            tokenizer's own, else the first of ``'[PAD]'``, ``'<pad>'`` and
            ``'</s>'`` in its vocabulary.

    Attributes:
        vocab_size (int): Number of ids, including added tokens.
        pad_id (int): Id of the padding token.

    Raises:
        FileNotFoundError: If the path does not exist or cannot be
            downloaded.
        ImportError: If transformers is not installed.
        ValueError: If ``clean`` is unknown, or there is no padding token.
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
        """Encode ``C`` sentences as int64 ids, shape ``(C, max_words)``."""
        encoded = self._tokenizer(
            [self._clean(sentence) for sentence in sentences],
            padding='max_length',
            truncation=True,
            max_length=max_words,
        )
        return torch.tensor(encoded['input_ids'], dtype=torch.int64)

    def _guess_pad_token(self) -> str:
        """Find a usual padding token in the vocabulary."""
        vocabulary = self._tokenizer.get_vocab()
        for token in ('[PAD]', '<pad>', '</s>'):
            if token in vocabulary:
                return token
        raise ValueError(
            f"The tokenizer of '{self.path}' has no padding token. Name a "
            'token of its vocabulary as pad_token, for example the end token.'
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, clean={self.clean!r})'


def _load(path: str) -> Any:
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as err:
        raise ImportError(
            'HuggingFaceTokenizer needs the package transformers, which is '
            "not installed. Install it with: pip install 'eaglenet_mm"
            "[huggingface]'."
        ) from err
    if path.startswith(_HUB):
        path = _fetch_folder(path)
    if not osp.exists(path):
        raise FileNotFoundError(
            f"HuggingFaceTokenizer expects path='{path}' to be a local "
            'folder with a tokenizer or its tokenizer.json, but there is '
            'none. Fetch it first, for example by `hf download NAME '
            '--local-dir FOLDER`.'
        )
    if osp.isdir(path):
        return AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    return PreTrainedTokenizerFast(tokenizer_file=path)


def _fetch_folder(path: str) -> str:
    """Return the folder of a tokenizer of the Hub."""
    name = path.removeprefix(_HUB)
    try:
        for file in _FILES:
            found = fetch_from_hub(name, [file])
    except (OSError, ValueError) as err:
        raise DownloadError(
            f"The tokenizer '{path}' is not in the Hugging Face cache and "
            f'could not be downloaded: {err}. Run `hf download {name} '
            f'{" ".join(_FILES)} --local-dir FOLDER` elsewhere and set path '
            'of the tokenizer to the folder.',
            setting=path,
            instead='/path/to/folder',
        ) from err
    return osp.dirname(found)
