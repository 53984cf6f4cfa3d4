"""What the two CLIP encoders share: weights, precision and freezing."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from open_clip.model import convert_weights_to_lp
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .clip_loading import load_tower
from .clip_positions import TABLE, describe_misfit, fit_positions
from .clip_tower import resolve_arch
from .clip_weights import find_start_weights, load_clip_weights
from .low_rank import add_low_rank

PRECISIONS = {'fp32': None, 'fp16': torch.float16}


class CLIPEncoder(BaseModule):
    """Base of :class:`CLIPTextEncoder` and :class:`CLIPVideoEncoder`.

    Holds one tower of open_clip, ``self.tower``, under open_clip's parameter
    names. A subclass builds it and computes features.

    Args:
        arch (str or dict): Name of an open_clip model; a model folder as
            open_clip writes it, ``'local-dir:PATH'`` or
            ``'hf-hub:OWNER/NAME'``; or a dict with ``embed_dim``,
            ``vision_cfg`` / ``text_cfg`` and ``quick_gelu``.
        pretrained (str or bool, optional): A tag of open_clip, for example
            ``'openai'``; a local file (OpenAI's TorchScript archive, a state
            dict, safetensors); None for the weights of a model folder and
            for random ones otherwise, which is logged as a warning; or False
            for random weights in any case. Defaults to None.
        frozen (str, optional): ``'release'`` freezes what EagleNet's release
            freezes: the embeddings of tokens, patches, class and positions,
            and the norm before the blocks. Defaults to None: freezing
            belongs to the training recipe, not to the encoder.
        num_frozen_layers (int): Blocks frozen as well, from the first one
            (the release's ``freeze_layer_num``). Needs
            ``frozen='release'``. Defaults to 0.
        gradient_checkpointing (bool): Whether blocks are computed again in
            backward instead of keeping their activations. Defaults to False.
        precision (str): ``'fp32'``, or ``'fp16'`` for the half-precision
            matrices of the release: convolution, attention, linear layers
            and projections; norms and embeddings stay in float32. Defaults
            to ``'fp32'``.
        resize_positions (bool): Whether position embeddings of another size
            are brought to that of the tower when weights are loaded, those
            to start from and later a checkpoint: a square grid of patches is
            interpolated, a text table stretched or cut, see
            :func:`~.clip_positions.fit_positions`. Defaults to False,
            another size is an error.
        lora (dict, optional): Train low-rank updates instead of the tower:
            fields of peft's ``LoraConfig``, see
            :func:`~.low_rank.add_low_rank`. Defaults to None.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.

    Raises:
        ValueError: If an option is unknown, or ``pretrained`` does not fit
            the architecture.
    """

    #: ``'vision'`` or ``'text'``.
    side: ClassVar[str]
    #: Parts of the tower that ``frozen='release'`` freezes.
    frozen_parts: ClassVar[tuple[str, ...]]
    tower: VisionTransformer | TextTransformer

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | bool | None = None,
        *,
        frozen: str | None = None,
        num_frozen_layers: int = 0,
        gradient_checkpointing: bool = False,
        precision: str = 'fp32',
        resize_positions: bool = False,
        lora: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if precision not in PRECISIONS:
            raise ValueError(
                f'precision must be one of {sorted(PRECISIONS)}, but got '
                f'{precision!r}.'
            )
        if frozen not in (None, 'release'):
            raise ValueError(
                f"frozen must be None or 'release', but got {frozen!r}."
            )
        config = resolve_arch(arch)
        self.embed_dim: int = config['embed_dim']
        self.frozen = frozen
        self.num_frozen_layers = num_frozen_layers
        self.gradient_checkpointing = gradient_checkpointing
        self.resize_positions = resize_positions
        self.tower = self._build_tower(config, PRECISIONS[precision])
        self._check_num_frozen_layers()
        self._load(arch, pretrained, config['quick_gelu'])
        if precision == 'fp16':
            convert_weights_to_lp(self.tower, torch.float16)
        #: Names of the tower's tensors before LoRA, and those since.
        self._renamed: dict[str, str] = {}
        if lora is not None:
            self._renamed = add_low_rank(self.tower, lora)
        self._freeze()

    @abstractmethod
    def _build_tower(
        self, config: Mapping[str, Any], cast_dtype: torch.dtype | None
    ) -> VisionTransformer | TextTransformer:
        """Build the tower with random weights."""

    def train(self, mode: bool = True) -> CLIPEncoder:
        """Set the mode; frozen parameters stay frozen in both.

        Args:
            mode (bool): Whether to train. Defaults to True.

        Returns:
            CLIPEncoder: Itself.
        """
        super().train(mode)
        self._freeze()
        return self

    def _load(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | bool | None,
        quick_gelu: bool,
    ) -> None:
        """Load pretrained weights, or say that there are none."""
        name = type(self).__name__
        source = find_start_weights(pretrained, arch)
        if source is None:
            print_log(
                f'{name}: random weights (pretrained={pretrained}). Give '
                'pretrained, '
                'or load a checkpoint before using its features.',
                logger='current',
                level=logging.WARNING,
            )
            return
        weights = load_clip_weights(source, arch)
        count = load_tower(
            self.tower,
            weights,
            self.side,
            quick_gelu=quick_gelu,
            resize_positions=self.resize_positions,
        )
        print_log(
            f'{name}: {count} tensors loaded from {weights.path}.',
            logger='current',
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Fit what a checkpoint has to this tower; torch loads it then."""
        tower = f'{prefix}tower.'
        for plain, name in self._renamed.items():
            # a checkpoint made without LoRA
            if tower + plain in state_dict and tower + name not in state_dict:
                state_dict[tower + name] = state_dict.pop(tower + plain)
        table = state_dict.get(tower + TABLE)
        if table is not None:
            if self.resize_positions:
                table = fit_positions(self.tower, table)
                state_dict[tower + TABLE] = table
            misfit = describe_misfit(self.tower, table)
            if misfit is not None:
                error_msgs.append(f'{prefix}tower: {misfit}')
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _check_num_frozen_layers(self) -> None:
        num_layers = len(self.tower.transformer.resblocks)
        if not 0 <= self.num_frozen_layers <= num_layers:
            raise ValueError(
                f'num_frozen_layers must lie in [0, {num_layers}], the layers '
                f'of the tower, but got {self.num_frozen_layers}.'
            )
        if self.num_frozen_layers and self.frozen is None:
            raise ValueError(
                f'num_frozen_layers={self.num_frozen_layers} has no effect '
                "without frozen='release'. Set both or none."
            )

    def _freeze(self) -> None:
        """Stop the gradients of the frozen parameters."""
        if self.frozen is None:
            return
        for part in self.frozen_parts:
            getattr(self.tower, part).requires_grad_(False)
        blocks = self.tower.transformer.resblocks
        for block in list(blocks)[: self.num_frozen_layers]:
            block.requires_grad_(False)

    def _run_blocks(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Run the transformer blocks, shape ``(N, L, C)``."""
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for block in self.tower.transformer.resblocks:
            if recompute:
                tokens = checkpoint(
                    block, tokens, num_frames, use_reentrant=False
                )
            else:
                tokens = block(tokens, num_frames)
        return tokens

    @staticmethod
    def _to_full_precision(features: Tensor) -> Tensor:
        """Cast half-precision features to float32, keep float64."""
        if features.dtype in (torch.float16, torch.bfloat16):
            return features.float()
        return features
