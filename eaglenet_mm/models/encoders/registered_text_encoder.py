"""Sentences to features by any text tower of open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures

from .open_clip_towers import build_open_clip_tower
from .token_checks import check_token_ids


@MODELS.register_module()
class RegisteredTextEncoder(BaseModule):
    """Encode token ids by a text tower of open_clip that is not plain CLIP.

    For SigLIP and its like, which see the whole sentence and pool at the last
    place: give them ids of their full ``context_length``, padded by their own
    tokenizer. For CLIP's own towers :class:`~.clip_text_encoder.
    CLIPTextEncoder` also has features of tokens and freezing by layers.

    Args:
        backbone (dict): ``type='open_clip.NAME'``, or ``type='open_clip'``
            with ``arch``; see
            :func:`~.open_clip_towers.build_open_clip_tower`.
        embed_dim (int, optional): Width of the features, reached by a linear
            layer. Defaults to None: the tower's own, without the layer.
        max_words (int, optional): Rows of the positional table. Defaults to
            the architecture's ``context_length``.
        frozen (bool): Whether the tower is frozen and stays in evaluation
            mode. Defaults to False.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.

    Raises:
        KeyError: If ``arch`` has no ``text_cfg``.
        ValueError: If the backbone is no tower of open_clip, or weights do
            not fit.
    """

    #: Towers pool in ways of their own, and tell nothing but the result.
    output_tokens = False

    def __init__(
        self,
        backbone: Mapping[str, Any],
        embed_dim: int | None = None,
        *,
        max_words: int | None = None,
        frozen: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        name = str(backbone.get('type'))
        if name.partition('.')[0] != 'open_clip':
            raise ValueError(
                'RegisteredTextEncoder takes text towers of open_clip, '
                f"type='open_clip.NAME', but got {name!r}. Use "
                'HuggingFaceTextEncoder for other language models.'
            )
        self.tower, _ = build_open_clip_tower(
            backbone, 'text', max_words=max_words
        )
        self.frozen = frozen
        self.context_length: int = self.tower.context_length
        self.vocab_size: int = self.tower.vocab_size
        self.tower.eval()
        ids = torch.zeros(1, self.context_length, dtype=torch.int64)
        with torch.no_grad():
            channels = self.tower(ids).shape[-1]
        self.embed_dim = embed_dim or channels
        self.projection: nn.Module = nn.Identity()
        if embed_dim is not None:
            self.projection = nn.Linear(channels, embed_dim)
        self.train()

    def train(self, mode: bool = True) -> RegisteredTextEncoder:
        """Set the mode; a frozen tower stays in evaluation mode.

        Args:
            mode (bool): Whether to train. Defaults to True.

        Returns:
            RegisteredTextEncoder: Itself.
        """
        super().train(mode)
        if self.frozen:
            self.tower.requires_grad_(False)
            self.tower.eval()
        return self

    def forward(self, token_ids: Tensor) -> TextFeatures:
        """Encode sentences.

        Args:
            token_ids (Tensor): Token ids, integers, shape ``(Bt, L)`` with
                ``L`` up to ``context_length``.

        Returns:
            TextFeatures: ``embeds`` of shape ``(Bt, D)``, not normalised, in
            float32 (float64 if the encoder is).

        Raises:
            TypeError: If the ids are no integers.
            ValueError: If the ids have another shape or, on the CPU, lie
                outside the vocabulary.
        """
        check_token_ids(token_ids, self.context_length, self.vocab_size)
        embeds = self.projection(self.tower(token_ids))
        if embeds.dtype in (torch.float16, torch.bfloat16):
            embeds = embeds.float()
        return TextFeatures(embeds=embeds)
