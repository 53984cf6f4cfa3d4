"""Encode the captions of an item."""

from collections.abc import Callable
from typing import Any, cast

from mmcv.transforms import BaseTransform
from torch import Tensor

from eaglenet_mm.registry import SCOPE, TOKENIZERS, TRANSFORMS


@TRANSFORMS.register_module()
class TokenizeCaptions(BaseTransform):
    """Encode the captions of an item.

    Takes ``captions`` (list of ``C`` strings), adds ``token_ids`` (Tensor,
    int64, shape ``(C, max_words)``).

    Args:
        tokenizer (dict | Callable): Tokenizer or its config. Defaults to
            ``dict(type='CLIPTokenizer')``.
        max_words (int): Length of the token ids, start and end token
            included, the ``context_length`` of the text encoder. Defaults to
            32.

    Raises:
        ValueError: If ``max_words`` is less than 2.
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
        if max_words < 2:
            raise ValueError(
                'max_words counts the start and the end token and must be at '
                f'least 2, but got {max_words}. Set it to the context_length '
                'of the text encoder.'
            )
        self.tokenizer = cast(Callable[..., Tensor], tokenizer)
        self.max_words = max_words

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Encode the captions of an item.

        Args:
            results (dict): With ``captions``.

        Returns:
            dict: With ``token_ids``.
        """
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
