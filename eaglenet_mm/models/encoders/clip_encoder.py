"""Text and video encoders based on CLIP's towers."""

from __future__ import annotations

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
#: Parameters that ``frozen='release'`` freezes.
FROZEN_PARTS = {
    'text': ('token_embedding', 'positional_embedding'),
    'vision': ('conv1', 'class_embedding', 'positional_embedding', 'ln_pre'),
}
#: Default LoRA targets: all linear maps of the blocks. The projection of
#: queries, keys and values is a parameter, not a module.
LORA_TARGETS: dict[str, list[str]] = {
    'target_modules': ['out_proj', 'c_fc', 'c_proj'],
    'target_parameters': ['attn.in_proj_weight'],
}


class CLIPEncoder(BaseModule):
    """Base class of :class:`CLIPTextEncoder` and :class:`CLIPVideoEncoder`.

    Holds an open_clip tower, ``self.tower``, with open_clip's parameter
    names.

    Args:
        arch (str or dict): Name of an open_clip model; an open_clip model
            folder, ``'local-dir:PATH'`` or ``'hf-hub:OWNER/NAME'``; or a dict
            with ``embed_dim``, ``vision_cfg`` / ``text_cfg`` and
            ``quick_gelu``.
        pretrained (str or bool, optional): An open_clip tag, for example
            ``'openai'``; a local file (OpenAI's TorchScript archive, a state
            dict or safetensors); None for the weights of a model folder, or
            else random weights, of which a training warns unless a
            checkpoint replaces them; False for random weights. Default: None.
        frozen (str, optional): ``'release'`` freezes what EagleNet's release
            freezes: token, patch, class and position embeddings, and the norm
            before the blocks. Default: None, nothing.
        num_frozen_layers (int): Number of leading blocks to freeze too (the
            release's ``freeze_layer_num``). Requires ``frozen='release'``.
            Default: 0.
        gradient_checkpointing (bool): Recompute blocks in the backward pass
            instead of keeping their activations. Default: False.
        precision (str): ``'fp32'``, or ``'fp16'`` for the release's
            half-precision weights: convolution, attention, linear layers and
            projections, but not norms and embeddings. Default: ``'fp32'``.
        resize_positions (bool): Resize position embeddings when loading
            pretrained weights or a checkpoint: a square grid of patches is
            interpolated, a text table cut, or stretched as in `Long-CLIP
            <https://arxiv.org/abs/2403.15378>`_, section 3.1. Default:
            False, a different size is an error.
        lora (dict, optional): Fields of peft's ``LoraConfig`` such as ``r``
            and ``lora_alpha``, to freeze the tower and train low-rank updates
            (`LoRA <https://arxiv.org/abs/2106.09685>`_). By default of all
            linear maps of the blocks; set ``target_modules`` or
            ``target_parameters`` to change that. Default: None.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

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
                f'num_frozen_layers must be in [0, {num_layers}], the layers '
                f'of the tower, but got {num_frozen_layers}.'
            )
        if num_frozen_layers and frozen is None:
            raise ValueError(
                f'num_frozen_layers={num_frozen_layers} has no effect '
                "without frozen='release'. Set both or neither."
            )
        loaded = load_start_weights(
            self.tower, self.side, arch, pretrained, resize_positions
        )
        if loaded:
            print_log(f'{type(self).__name__}: {loaded}.', logger='current')
        if precision == 'fp16':
            convert_weights_to_lp(self.tower, torch.float16)
        #: Names of the tower's tensors before and after adding LoRA.
        self._renamed: dict[str, str] = {}
        if lora is not None:
            self._renamed = _add_lora(self.tower, lora)
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
        """Adapt a checkpoint to this tower before loading it."""
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
        """Disable the gradient of frozen parameters."""
        if self.frozen is None:
            return
        for part in FROZEN_PARTS[self.side]:
            getattr(self.tower, part).requires_grad_(False)
        blocks = self.tower.transformer.resblocks
        for block in list(blocks)[: self.num_frozen_layers]:
            block.requires_grad_(False)

    def _run_blocks(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Run the transformer blocks on tokens ``(N, L, C)``."""
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
    """Text encoder of `CLIP <https://arxiv.org/abs/2103.00020>`_.

    The sentence embedding is the projected output at the end token, not
    normalised. As in CLIP, the end token is the first occurrence of the
    largest id. Attention is causal, so padding has no influence.

    Args:
        arch (str or dict): See :class:`CLIPEncoder`; a dict needs
            ``text_cfg``.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
        max_words (int, optional): Maximum number of tokens, which is the
            number of position embeddings. A longer pretrained table is cut; a
            shorter one needs ``resize_positions=True``. Default: the
            architecture's ``context_length``.
        output_tokens (bool): Return projected token embeddings too.
            Default: False.
        **kwargs: Options of :class:`CLIPEncoder`.

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
            token_ids (Tensor): Integer ids, padded with 0 after the end
                token, shape ``(Bt, L)``, ``L`` at most ``context_length``.

        Returns:
            TextFeatures: ``embeds``, shape ``(Bt, D)``, not normalised, in
            float32 (float64 for a float64 encoder); with ``output_tokens``
            also ``tokens``, shape ``(Bt, L, D)``, and ``token_mask``, True up
            to the end token, shape ``(Bt, L)``.

        Raises:
            TypeError: If the ids are not integers.
            ValueError: If the shape is wrong or, on the CPU only, an id is
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
        """Project tokens to the joint embedding space."""
        projected = self.tower.ln_final(tokens) @ self.tower.text_projection
        return at_least_float32(projected)


@MODELS.register_module()
class CLIPVideoEncoder(CLIPEncoder):
    """Frame-wise image encoder of CLIP, with patch shift.

    Implements the image tower of `CLIP <https://arxiv.org/abs/2103.00020>`_
    and the patch shift of `TS2-Net <https://arxiv.org/abs/2207.07852>`_. The
    frame embedding is the projected class token after the last norm, not
    normalised. In ``shift_layers``, the attention input of a frame contains
    patch tokens of its neighbours, see :class:`~.clip_tower.PatchShift`; the
    residual branch does not.

    As in the release, padded frames (zero pixels) are encoded like others,
    and the patch shift mixes them into the last real frame.

    Args:
        arch (str or dict): See :class:`CLIPEncoder`; a dict needs
            ``vision_cfg``.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
        image_size (int or tuple, optional): Height and width in pixels,
            multiples of the patch size. Weights of another size need
            ``resize_positions=True``. Default: the architecture's.
        shift_layers (Sequence[int]): Indices of blocks with patch shift,
            negative ones from the end. Default: ``(10, 11)``, the last two of
            ViT-B.
        output_patches (bool): Return projected patch embeddings too.
            Default: False.
        **kwargs: Options of :class:`CLIPEncoder`.

    Raises:
        ValueError: See :class:`CLIPEncoder`; also if a shift layer does not
            exist or a frame has fewer than 7 tokens to shift.

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
        #: Height and width of the frames in pixels.
        self.image_size: tuple[int, int] = tuple(self.tower.image_size)
        self.output_patches = output_patches
        if is_model_folder(arch):  # states its pixel statistics
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
            pixels (Tensor): Normalised frames, shape ``(Bv, F, 3, H, W)``.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``; passed through without affecting the features.
                Default: None, all True.

        Returns:
            VideoFeatures: ``frames``, shape ``(Bv, F, D)``, not normalised,
            in float32 (float64 for a float64 encoder), and ``frame_mask``;
            with ``output_patches`` also ``patches``, ``(Bv, F, L - 1, D)``.

        Raises:
            ValueError: If the frames or the mask have the wrong shape.
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
        """Embed images as a class token and patches, ``(N, L, C)``."""
        tower = self.tower
        # undo autocast's half precision: the residual stream keeps the
        # precision of the weights
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
    """Check the shape of frames and mask; return the mask."""
    height, width = image_size
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, width):
        raise ValueError(
            f'pixels must have the shape (videos, frames, 3, {height}, '
            f'{width}), but got {tuple(pixels.shape)}. Set size of '
            "ResizeCenterCrop to the encoder's image_size."
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
    """Check dtype, shape and, on the CPU, range of token ids ``(Bt, L)``."""
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
            'TokenizeCaptions to that of the text encoder.'
        )
    # on a GPU this would synchronize, and it cannot be exported; there the
    # embedding raises an error itself
    if (
        not torch.compiler.is_exporting()
        and token_ids.device.type == 'cpu'
        and token_ids.numel()
    ):
        low, high = token_ids.aminmax()
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f'token_ids must be in [0, {vocab_size - 1}], but got ids '
                f'from {int(low)} to {int(high)}. Use the tokenizer of this '
                'encoder.'
            )


def _add_lora(tower: nn.Module, settings: Mapping[str, Any]) -> dict[str, str]:
    """Freeze a tower and add trainable low-rank updates, initially zero.

    Returns the old and new names of tensors that were renamed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
    except ImportError as err:
        raise ImportError(
            f'lora needs the package peft, but got: {err}. Install it with: '
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
            f'fit the tower, but got: {err}. Correct the setting.'
        ) from err
    if any(isinstance(part, MultiheadAttention) for part in tower.modules()):
        # it merges and unmerges the update in each call, which changes the
        # frozen weights by rounding errors
        raise ValueError(
            "lora targets attention modules ('attn'), whose frozen weights "
            "peft would change slightly in each call. Target 'out_proj' in "
            "target_modules and 'attn.in_proj_weight' in target_parameters "
            'instead.'
        )
    for part in tower.modules():
        if isinstance(part, ParamWrapper):
            # peft moves it to the end in each call; a copy that is never
            # called, such as EMA's, needs the same order
            own = part.get_base_layer()._parameters
            own[part.parameter_name] = own.pop(part.parameter_name)
    return {
        names[id(value)]: name
        for name, value in tower.state_dict(keep_vars=True).items()
        if names.get(id(value), name) != name
    }
