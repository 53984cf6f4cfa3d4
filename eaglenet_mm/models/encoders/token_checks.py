"""Checks of the token ids that text encoders take."""

from __future__ import annotations

import torch
from torch import Tensor


def check_token_ids(
    token_ids: Tensor, context_length: int | None, vocab_size: int
) -> None:
    """Refuse token ids that a text encoder cannot look up.

    Args:
        token_ids (Tensor): Of shape ``(Bt, L)``.
        context_length (int, optional): Most tokens of a sentence. None: any.
        vocab_size (int): Number of ids.

    Raises:
        TypeError: If the ids are no integers.
        ValueError: If they have another shape or, on the CPU, lie outside
            the vocabulary.
    """
    if token_ids.is_floating_point() or token_ids.dtype == torch.bool:
        raise TypeError(
            f'token_ids must be integers, but got {token_ids.dtype}. '
            'Tokenise the captions first.'
        )
    length = token_ids.shape[-1]
    if (
        token_ids.ndim != 2
        or length < 1
        or (context_length is not None and length > context_length)
    ):
        limit = (
            'any' if context_length is None else f'at most {context_length}'
        )
        raise ValueError(
            f'token_ids must have the shape (texts, tokens) with {limit} '
            f'tokens, but got {tuple(token_ids.shape)}. Set max_words of '
            'TokenizeCaptions to what the text encoder takes.'
        )
    # Elsewhere than on the CPU the look at the values would wait for the
    # device, and an export cannot hold it; the embedding raises by itself.
    if (
        not torch.compiler.is_exporting()
        and token_ids.device.type == 'cpu'
        and token_ids.numel()
    ):
        low, high = token_ids.aminmax()
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f'token_ids must lie in [0, {vocab_size - 1}], but got ids '
                f'from {int(low)} to {int(high)}. Use the tokenizer this '
                'encoder was built for.'
            )
