"""Sentences to features by CLIP's text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor

from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures

from .clip_encoder import CLIPEncoder
from .clip_tower import build_text_tower


@MODELS.register_module()
class CLIPTextEncoder(CLIPEncoder):
    """Encode token ids by CLIP's text tower.

    The tower is that of `CLIP <https://arxiv.org/abs/2103.00020>`_.
    A sentence's feature is the projected output at its end token, not
    normalised. The end token is found as CLIP does: the largest id of the
    sentence, at its first place. The tower is causal, so padding after it
    has no influence, and shorter inputs give the same features.

    Args:
        arch (str or dict): Name of an open_clip model, a model folder, or a
            dict with ``embed_dim``, ``text_cfg`` and ``quick_gelu``, see
            :class:`CLIPEncoder`.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
            Defaults to None, the weights of a model folder, else random ones.
        max_words (int, optional): Rows of the positional table, the most
            tokens a sentence may have; the first rows of a longer
            pretrained table are taken, a shorter one needs
            ``resize_positions=True``. Defaults to the architecture's
            ``context_length``.
        output_tokens (bool): Whether features of all tokens, projected as
            the sentence's, are returned as well. Defaults to False.
        **kwargs: Freezing, checkpointing, precision, resizing of positions
            and LoRA, see :class:`CLIPEncoder`.

    Raises:
        ValueError: See :class:`CLIPEncoder`.

    Example:
        >>> encoder = CLIPTextEncoder('ViT-B-32-quickgelu', max_words=32)
        >>> encoder(torch.tensor([[49406, 320, 49407]])).embeds.shape
        torch.Size([1, 512])
    """

    tower: TextTransformer
    side = 'text'
    frozen_parts = ('token_embedding', 'positional_embedding')

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | bool | None = None,
        *,
        max_words: int | None = None,
        output_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        self._max_words = max_words
        super().__init__(arch, pretrained, **kwargs)
        self.context_length: int = self.tower.context_length
        self.output_tokens = output_tokens

    def _build_tower(
        self, config: Mapping[str, Any], cast_dtype: torch.dtype | None
    ) -> TextTransformer:
        return build_text_tower(
            config, max_words=self._max_words, cast_dtype=cast_dtype
        )

    def forward(self, token_ids: Tensor) -> TextFeatures:
        """Encode sentences.

        Args:
            token_ids (Tensor): Token ids, integers, padded with 0 after the
                end token, shape ``(Bt, L)`` with any ``L`` up to
                ``context_length``.

        Returns:
            TextFeatures: ``embeds`` of shape ``(Bt, D)``, not normalised, in
            float32 (float64 if the encoder is); with ``output_tokens`` also
            ``tokens``, shape ``(Bt, L, D)``, and ``token_mask``, True up to
            the end token, shape ``(Bt, L)``.

        Raises:
            TypeError: If the ids are no integers.
            ValueError: If the ids have another shape or, on the CPU, lie
                outside the vocabulary.
        """
        self._check(token_ids)
        tower = self.tower
        length = token_ids.shape[1]
        dtype = tower.text_projection.dtype
        tokens = tower.token_embedding(token_ids).to(dtype)  # (Bt, L, C)
        tokens = tokens + tower.positional_embedding[:length].to(dtype)
        tokens = self._run_blocks(tokens)
        end = token_ids.argmax(dim=-1)  # (Bt,)
        rows = torch.arange(len(token_ids), device=token_ids.device)
        if not self.output_tokens:
            embeds = self._project(tokens[rows, end])  # (Bt, D)
            return TextFeatures(embeds=embeds)
        tokens = self._project(tokens)  # (Bt, L, D)
        places = torch.arange(length, device=token_ids.device)
        return TextFeatures(
            embeds=tokens[rows, end],
            tokens=tokens,
            token_mask=places <= end.unsqueeze(1),
        )

    def _project(self, tokens: Tensor) -> Tensor:
        """Normalise and project tokens to the shared space."""
        projected = self.tower.ln_final(tokens) @ self.tower.text_projection
        return self._to_full_precision(projected)

    def _check(self, token_ids: Tensor) -> None:
        if token_ids.is_floating_point() or token_ids.dtype == torch.bool:
            raise TypeError(
                'token_ids must be integers, but got '
                f'{token_ids.dtype}. Tokenise the captions first.'
            )
        if token_ids.ndim != 2 or not (
            0 < token_ids.shape[1] <= self.context_length
        ):
            raise ValueError(
                'token_ids must have the shape (texts, tokens) with at most '
                f'{self.context_length} tokens, but got '
                f'{tuple(token_ids.shape)}. Set max_words alike in the '
                'encoder and in TokenizeCaptions.'
            )
        # Elsewhere than on the CPU the look at the values would wait for the
        # device, and an export cannot hold it; the embedding raises by itself.
        if (
            not torch.compiler.is_exporting()
            and token_ids.device.type == 'cpu'
            and token_ids.numel()
        ):
            low, high = token_ids.aminmax()
            if low < 0 or high >= self.tower.vocab_size:
                raise ValueError(
                    'token_ids must lie in [0, '
                    f'{self.tower.vocab_size - 1}], but got ids from '
                    f'{int(low)} to {int(high)}. Use the tokenizer this '
                    'encoder was built for.'
                )
