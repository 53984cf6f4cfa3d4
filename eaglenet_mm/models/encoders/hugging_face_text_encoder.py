"""Text encoder based on a Hugging Face language model."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.encoders.backbones import require_package
from eaglenet_mm.models.encoders.clip_encoder import check_token_ids
from eaglenet_mm.models.encoders.registered_encoder import (
    make_projection,
    run_once,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures

POOLINGS = ('cls', 'mean', 'last')


@MODELS.register_module()
class HuggingFaceTextEncoder(BaseModule):
    """Text encoder based on a model of the transformers library.

    Supports encoders such as BERT, RoBERTa, MPNet and the encoder of T5, and
    decoders such as GPT-2 with ``pooling='last'``. Padding is recognised by
    its id. Unused parameters, such as BERT's pooler, are frozen, because
    ``DistributedDataParallel`` expects a gradient for all others.

    Args:
        model (str or dict): Local model folder, or a dict with
            ``model_type`` and fields of its config for random weights.
            Nothing is downloaded.
        embed_dim (int, optional): Width of the features, projected by a
            linear layer. Default: None, the model's width without projection.
        pooling (str): Token that represents the sentence: ``'cls'``, the
            first; ``'last'``, the last real one; ``'mean'``, the mean of the
            real ones. Default: ``'mean'``.
        pad_id (int, optional): Id of padding. Default: that of the model's
            config, or else 0.
        output_tokens (bool): Return token features too. Default: False.
        frozen (bool): Freeze the model and keep it in evaluation mode.
            Default: False.
        pretrained (bool): Load the weights of the folder; if False, only its
            config is read and weights are random. Default: True.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ImportError: If transformers is not installed.
        ValueError: If the pooling is unknown, the config has no
            ``model_type``, or the model returns no token features.

    Example:
        >>> bert = dict(model_type='bert', hidden_size=48, vocab_size=99,
        ...             num_attention_heads=2, num_hidden_layers=1)
        >>> encoder = HuggingFaceTextEncoder(bert, 512, pooling='cls')
        >>> encoder(torch.tensor([[2, 7, 3, 0]])).embeds.shape
        torch.Size([1, 512])
    """

    def __init__(
        self,
        model: str | Mapping[str, Any],
        embed_dim: int | None = None,
        *,
        pooling: str = 'mean',
        pad_id: int | None = None,
        output_tokens: bool = False,
        frozen: bool = False,
        pretrained: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pooling not in POOLINGS:
            raise ValueError(
                f'pooling must be one of {POOLINGS}, but got {pooling!r}.'
            )
        self._pool = {'cls': _first, 'mean': _mean, 'last': _last}[pooling]
        self.model = _build_model(model, pretrained)
        config = self.model.config
        if pad_id is None:
            stated = getattr(config, 'pad_token_id', None)
            pad_id = 0 if stated is None else stated
        self.pad_id = pad_id
        self.vocab_size: int = config.vocab_size
        self.context_length: int | None = getattr(
            config, 'max_position_embeddings', None
        )
        self.output_tokens = output_tokens
        self.frozen = frozen
        channels = self._probe(config)
        self.embed_dim = embed_dim or channels
        self.projection = make_projection(channels, embed_dim)
        self.train()

    def init_weights(self) -> None:
        """Do nothing: the weights are complete after construction.

        Otherwise MMEngine would call the model's own ``init_weights``, which
        may overwrite loaded weights.
        """

    def train(self, mode: bool = True) -> HuggingFaceTextEncoder:
        """Set the mode; a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.model.requires_grad_(False)
            self.model.eval()
        return self

    def forward(self, token_ids: Tensor) -> TextFeatures:
        """Encode sentences.

        Args:
            token_ids (Tensor): Integer ids, padded with ``pad_id`` after the
                sentence, shape ``(Bt, L)``.

        Returns:
            TextFeatures: ``embeds``, shape ``(Bt, D)``, not normalised, in
            float32 (float64 for a float64 encoder); with ``output_tokens``
            also ``tokens``, shape ``(Bt, L, D)``, and ``token_mask``, True
            for real tokens, shape ``(Bt, L)``.

        Raises:
            TypeError: If the ids are not integers.
            ValueError: If the shape is wrong or, on the CPU only, an id is
                outside the vocabulary.
        """
        check_token_ids(token_ids, self.context_length, self.vocab_size)
        mask = token_ids != self.pad_id  # (Bt, L)
        hidden = self._encode(token_ids, mask)  # (Bt, L, C)
        embeds = at_least_float32(self.projection(self._pool(hidden, mask)))
        if not self.output_tokens:
            return TextFeatures(embeds=embeds)
        return TextFeatures(
            embeds=embeds,
            tokens=at_least_float32(self.projection(hidden)),
            token_mask=mask,
        )

    def _encode(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Token features, ``(Bt, L, C)``."""
        output = self.model(input_ids=token_ids, attention_mask=mask.long())
        return output.last_hidden_state

    def _probe(self, config: Any) -> int:
        """Encode one sentence; return the feature width."""
        ids = torch.full((1, 2), (self.pad_id + 1) % self.vocab_size)
        try:
            hidden, _ = run_once(
                self.model, lambda: self._encode(ids, ids != self.pad_id)
            )
        except (AttributeError, TypeError, ValueError) as err:
            raise ValueError(
                'HuggingFaceTextEncoder needs a model that turns token ids '
                'into last_hidden_state, but model_type='
                f'{config.model_type!r} does not: {err}. Choose a text-only '
                'model, for example bert or roberta.'
            ) from err
        return hidden.shape[-1]


def _build_model(model: str | Mapping[str, Any], pretrained: bool) -> Any:
    """Build the model from a folder or a config."""
    require_package(
        'transformers', 'HuggingFaceTextEncoder', 'eaglenet_mm[huggingface]'
    )
    from transformers import AutoConfig, AutoModel

    if isinstance(model, str):
        if not osp.isdir(model):
            raise FileNotFoundError(
                f"HuggingFaceTextEncoder expects model='{model}' to be a "
                'local folder with config.json and weights, but there is no '
                'such folder. Download the model first, for example with '
                '`hf download NAME --local-dir FOLDER`.'
            )
        options = dict(local_files_only=True, trust_remote_code=False)
        if pretrained:
            built = AutoModel.from_pretrained(model, **options)
        else:
            config = AutoConfig.from_pretrained(model, **options)
            built = AutoModel.from_config(config)
    else:
        fields = dict(model)
        kind = fields.pop('model_type', None)
        if kind is None:
            raise ValueError(
                'The config of a Hugging Face model needs model_type, for '
                f"example 'bert', but has only {sorted(fields)}. Add it."
            )
        built = AutoModel.from_config(AutoConfig.for_model(kind, **fields))
    if getattr(built.config, 'is_encoder_decoder', False):
        return built.get_encoder()
    return built


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(hidden.dtype).unsqueeze(-1)  # (Bt, L, 1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, 0).amax(1)  # (Bt,)
    return hidden[torch.arange(len(hidden), device=mask.device), last]
