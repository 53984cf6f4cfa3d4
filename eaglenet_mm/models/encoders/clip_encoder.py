"""Sentences and frames to features by the two towers of CLIP."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from open_clip.model import convert_weights_to_lp
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.models.encoders.clip_tower import (
    build_text_tower,
    build_vision_tower,
    is_model_folder,
    pixel_statistics,
    resolve_arch,
)
from eaglenet_mm.models.encoders.clip_weights import (
    TABLE,
    describe_misfit,
    fit_positions,
    load_start_weights,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures

PRECISIONS = {'fp32': None, 'fp16': torch.float16}
#: Parts of a tower that ``frozen='release'`` freezes.
FROZEN_PARTS = {
    'text': ('token_embedding', 'positional_embedding'),
    'vision': ('conv1', 'class_embedding', 'positional_embedding', 'ln_pre'),
}
#: Linear maps that LoRA updates unless the config says otherwise: all of the
#: blocks. That of queries, keys and values is a parameter, not a module.
LORA_TARGETS: dict[str, list[str]] = {
    'target_modules': ['out_proj', 'c_fc', 'c_proj'],
    'target_parameters': ['attn.in_proj_weight'],
}


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
            for random weights in any case, without a word. Default: None.
        frozen (str, optional): ``'release'`` freezes what EagleNet's release
            freezes: the embeddings of tokens, patches, class and positions,
            and the norm before the blocks. Default: None; freezing belongs
            to the training recipe, not to the encoder.
        num_frozen_layers (int): Blocks frozen as well, from the first one
            (the release's ``freeze_layer_num``). Needs
            ``frozen='release'``. Default: 0.
        gradient_checkpointing (bool): Compute blocks again in backward
            instead of keeping their activations. Default: False.
        precision (str): ``'fp32'``, or ``'fp16'`` for the half-precision
            matrices of the release: convolution, attention, linear layers
            and projections; norms and embeddings stay in float32. Default:
            ``'fp32'``.
        resize_positions (bool): Bring position embeddings of another size to
            that of the tower when weights are loaded, those to start from
            and later a checkpoint: a square grid of patches is interpolated,
            a text table is cut, or stretched as in `Long-CLIP
            <https://arxiv.org/abs/2403.15378>`_, section 3.1. Default:
            False, another size is an error.
        lora (dict, optional): Train low-rank updates (`LoRA
            <https://arxiv.org/abs/2106.09685>`_, by peft) instead of the
            tower, which is frozen: fields of peft's ``LoraConfig`` such as
            ``r`` and ``lora_alpha``. Without ``target_modules`` and
            ``target_parameters`` all linear maps of the blocks are updated.
            Default: None.
        init_cfg (dict, optional): As in MMEngine. Default: None.

    Raises:
        ImportError: If ``lora`` is given and peft is not installed.
        ValueError: If an option is unknown, or ``pretrained`` does not fit
            the architecture.

    Example:
        >>> arch = dict(
        ...     embed_dim=16, text_cfg=dict(width=64, heads=1, layers=2)
        ... )
        >>> isinstance(CLIPTextEncoder(arch, pretrained=False), CLIPEncoder)
        True
    """

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
        self.tower: Any = self._build_tower(config, PRECISIONS[precision])
        is_vision = isinstance(self.tower, VisionTransformer)
        self.side = 'vision' if is_vision else 'text'
        num_layers = len(self.tower.transformer.resblocks)
        if not 0 <= num_frozen_layers <= num_layers:
            raise ValueError(
                f'num_frozen_layers must lie in [0, {num_layers}], the layers '
                f'of the tower, but got {num_frozen_layers}.'
            )
        if num_frozen_layers and frozen is None:
            raise ValueError(
                f'num_frozen_layers={num_frozen_layers} has no effect '
                "without frozen='release'. Set both or none."
            )
        loaded = load_start_weights(
            self.tower, self.side, arch, pretrained, resize_positions
        )
        name = type(self).__name__
        if loaded:
            print_log(f'{name}: {loaded}.', logger='current')
        elif pretrained is None:
            print_log(
                f'{name}: random weights (pretrained=None). Give pretrained, '
                'or load a checkpoint before using its features.',
                logger='current',
                level=logging.WARNING,
            )
        if precision == 'fp16':
            convert_weights_to_lp(self.tower, torch.float16)
        #: Names of the tower's tensors before LoRA, and those since.
        self._renamed: dict[str, str] = {}
        if lora is not None:
            self._renamed = _add_low_rank(self.tower, lora)
        self._freeze()

    @abstractmethod
    def _build_tower(
        self, config: Mapping[str, Any], cast_dtype: torch.dtype | None
    ) -> VisionTransformer | TextTransformer:
        """Build the tower with random weights."""

    def train(self, mode: bool = True) -> CLIPEncoder:
        """Set the mode; frozen parameters stay frozen in both."""
        super().train(mode)
        self._freeze()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
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
                error_msgs: list[str] = args[-1]
                error_msgs.append(f'{prefix}tower: {misfit}')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _freeze(self) -> None:
        """Stop the gradients of the frozen parameters."""
        if self.frozen is None:
            return
        for part in FROZEN_PARTS[self.side]:
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


@MODELS.register_module()
class CLIPTextEncoder(CLIPEncoder):
    """Encode token ids by CLIP's text tower.

    The tower is that of `CLIP <https://arxiv.org/abs/2103.00020>`_.
    A sentence's feature is the projected output at its end token, not
    normalised. The end token is found as CLIP does: the largest id of the
    sentence, at its first place. The tower is causal, so padding after it
    has no influence, and shorter inputs give the same features.

    Args:
        arch (str or dict): See :class:`CLIPEncoder`; a dict needs
            ``text_cfg``.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
        max_words (int, optional): Rows of the positional table, the most
            tokens a sentence may have; the first rows of a longer
            pretrained table are taken, a shorter one needs
            ``resize_positions=True``. Default: the architecture's
            ``context_length``.
        output_tokens (bool): Return features of all tokens as well,
            projected as the sentence's. Default: False.
        **kwargs: Freezing, checkpointing, precision, resizing of positions
            and LoRA, see :class:`CLIPEncoder`.

    Raises:
        ValueError: See :class:`CLIPEncoder`.

    Example:
        >>> encoder = CLIPTextEncoder('ViT-B-32-quickgelu', pretrained=False)
        >>> encoder(torch.tensor([[49406, 320, 49407]])).embeds.shape
        torch.Size([1, 512])
    """

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
        tower = self.tower
        check_token_ids(token_ids, self.context_length, tower.vocab_size)
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
        return at_least_float32(projected)


@MODELS.register_module()
class CLIPVideoEncoder(CLIPEncoder):
    """Encode every frame by CLIP's image tower, with patch shift.

    The tower is that of `CLIP <https://arxiv.org/abs/2103.00020>`_, the
    shift that of `TS2-Net <https://arxiv.org/abs/2207.07852>`_.
    A frame's feature is the projected class token after the last norm, not
    normalised. In the blocks named by ``shift_layers`` the attention input
    of a frame holds some patch tokens of its neighbours, see
    :class:`~.clip_tower.PatchShift`; the residual branch does not.

    Padded frames are encoded like any other: as in the release, their zero
    pixels go through the tower, and the patch shift mixes them into the last
    real frame.

    Args:
        arch (str or dict): See :class:`CLIPEncoder`; a dict needs
            ``vision_cfg``.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
        image_size (int or tuple, optional): Height and width of the frames,
            pixels, multiples of the patch size. Weights of another size need
            ``resize_positions=True``. Default: the architecture's.
        shift_layers (Sequence[int]): Blocks with the patch shift, counted
            from 0, or from the end if negative; ``()`` for none. Default:
            ``(10, 11)``, the last two of ViT-B.
        output_patches (bool): Return features of all patches as well,
            normalised and projected as the class token. Default: False.
        **kwargs: Freezing, checkpointing, precision, resizing of positions
            and LoRA, see :class:`CLIPEncoder`.

    Raises:
        ValueError: See :class:`CLIPEncoder`; also if a shift layer does not
            exist or there are fewer than 7 tokens to shift.

    Example:
        >>> encoder = CLIPVideoEncoder('ViT-B-32-quickgelu', pretrained=False)
        >>> encoder(torch.zeros(1, 2, 3, 224, 224)).frames.shape
        torch.Size([1, 2, 512])
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | bool | None = None,
        *,
        image_size: int | Sequence[int] | None = None,
        shift_layers: Sequence[int] = (10, 11),
        output_patches: bool = False,
        **kwargs: Any,
    ) -> None:
        self._shift_layers = tuple(shift_layers)
        self._image_size = image_size
        super().__init__(arch, pretrained, **kwargs)
        #: Height and width of the frames, pixels.
        self.image_size: tuple[int, int] = tuple(self.tower.image_size)
        self.output_patches = output_patches
        if is_model_folder(arch):  # which states what it was trained on
            self.mean, self.std = pixel_statistics(arch, pretrained)

    def _build_tower(
        self, config: Mapping[str, Any], cast_dtype: torch.dtype | None
    ) -> VisionTransformer:
        return build_vision_tower(
            config,
            image_size=self._image_size,
            shift_layers=self._shift_layers,
            cast_dtype=cast_dtype,
        )

    def forward(
        self, pixels: Tensor, frame_mask: Tensor | None = None
    ) -> VideoFeatures:
        """Encode videos.

        Args:
            pixels (Tensor): Normalised frames, shape ``(Bv, F, 3, H, W)``
                with any ``F``.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``; it is passed on and changes no feature.
                Default: all True.

        Returns:
            VideoFeatures: ``frames`` of shape ``(Bv, F, D)``, not
            normalised, in float32 (float64 if the encoder is), and the mask;
            with ``output_patches`` also ``patches``, shape
            ``(Bv, F, L - 1, D)``.

        Raises:
            ValueError: If the frames have another shape or size, or the mask
                does not fit them.
        """
        frame_mask = check_frames(pixels, frame_mask, self.image_size)
        num_frames = pixels.shape[1]
        tokens = self._embed(pixels.flatten(0, 1))  # (Bv * F, L, C)
        tokens = self._run_blocks(tokens, num_frames)
        if not self.output_patches:
            tokens = tokens[:, :1]
        feats = self.tower.ln_post(tokens) @ self.tower.proj
        feats = at_least_float32(feats)
        feats = feats.unflatten(0, pixels.shape[:2])  # (Bv, F, L, D)
        return VideoFeatures(
            frames=feats[:, :, 0],
            frame_mask=frame_mask,
            patches=feats[:, :, 1:] if self.output_patches else None,
        )

    def _embed(self, images: Tensor) -> Tensor:
        """Cut images into patches and embed them with the class token."""
        tower = self.tower
        # Under autocast the convolution gives half precision; the residual
        # stream stays in the precision of the weights.
        dtype = tower.proj.dtype
        patches = tower.conv1(images.to(dtype)).to(dtype)  # (N, C, h, w)
        patches = patches.flatten(2).transpose(1, 2)  # (N, L - 1, C)
        first = tower.class_embedding.to(dtype).expand(len(images), 1, -1)
        tokens = torch.cat([first, patches], dim=1)  # (N, L, C)
        tokens = tokens + tower.positional_embedding.to(dtype)
        return tower.ln_pre(tower.patch_dropout(tokens))


def check_frames(
    pixels: Tensor, frame_mask: Tensor | None, image_size: tuple[int, int]
) -> Tensor:
    """Refuse frames that an encoder cannot take; return their mask."""
    height, width = image_size
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, width):
        raise ValueError(
            f'pixels must have the shape (videos, frames, 3, {height}, '
            f'{width}), but got {tuple(pixels.shape)}. Set size of '
            'ResizeCenterCrop to the image_size of the encoder.'
        )
    if frame_mask is None:
        return pixels.new_ones(pixels.shape[:2], dtype=torch.bool)
    if frame_mask.shape != pixels.shape[:2]:
        raise ValueError(
            f'frame_mask must have the shape {tuple(pixels.shape[:2])} of '
            f'the frames, but got {tuple(frame_mask.shape)}.'
        )
    return frame_mask


def check_token_ids(
    token_ids: Tensor, context_length: int | None, vocab_size: int
) -> None:
    """Refuse token ids ``(Bt, L)`` that a text encoder cannot look up."""
    if token_ids.is_floating_point() or token_ids.dtype == torch.bool:
        raise TypeError(
            f'token_ids must be integers, but got {token_ids.dtype}. '
            'Tokenise the captions first.'
        )
    limit = 'any' if context_length is None else f'at most {context_length}'
    length = token_ids.shape[1] if token_ids.ndim == 2 else 0
    if not 0 < length <= (context_length or length):
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


def _add_low_rank(
    tower: nn.Module, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Let only low-rank updates of a tower learn; they start at zero.

    Returns the names that tensors of the tower had and have, where they
    differ.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
    except ImportError as err:
        raise ImportError(
            f'lora needs the package peft, but: {err}. Install it with: '
            "pip install 'eaglenet_mm[lora]'."
        ) from err
    chosen = dict(settings)
    if not set(chosen) & set(LORA_TARGETS):
        chosen |= LORA_TARGETS
    before = tower.state_dict(keep_vars=True)
    names = {id(value): name for name, value in before.items()}
    try:
        inject_adapter_in_model(LoraConfig(**chosen), tower)
    except (TypeError, ValueError) as err:
        raise ValueError(
            f"lora={dict(settings)} must be fields of peft's LoraConfig that "
            f'fit the tower, but: {err}. Mend the setting.'
        ) from err
    if any(isinstance(part, MultiheadAttention) for part in tower.modules()):
        # it adds and takes away the update around every call, which changes
        # the frozen weights by roundings
        raise ValueError(
            "lora targets whole attentions ('attn'), whose frozen weights "
            "peft would change a little with every call. Target 'out_proj' "
            "in target_modules and 'attn.in_proj_weight' in "
            'target_parameters instead.'
        )
    for part in tower.modules():
        if isinstance(part, ParamWrapper):
            # peft registers it anew, as the last, in every call; a copy that
            # was never called, as EMA keeps one, must have the same order
            own = part.get_base_layer()._parameters
            own[part.parameter_name] = own.pop(part.parameter_name)
    return {
        names[id(value)]: name
        for name, value in tower.state_dict(keep_vars=True).items()
        if names.get(id(value), name) != name
    }
