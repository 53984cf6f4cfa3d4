"""CLIP's towers: architectures, and open_clip's towers with own blocks."""

from __future__ import annotations

import difflib
import json
import os.path as osp
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import parse_model_name
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.pretrained import (
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
)
from torch import Tensor, nn

from eaglenet_mm.utils.downloads import DownloadError, fetch_from_hub
from eaglenet_mm.utils.type_name import type_name

ARCH_KEYS = ('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu')
#: Every ``L // 7``-th token is shifted, so 7 tokens are the minimum.
NUM_FOLDS = 7
FROM_PREVIOUS_START, FROM_NEXT_START = 1, 4

# -- blocks -----------------------------------------------------------------


def check_num_tokens(num_tokens: int) -> None:
    """Raise unless a frame has enough tokens, including the class token."""
    if num_tokens < NUM_FOLDS:
        raise ValueError(
            f'The patch shift needs at least {NUM_FOLDS} tokens per frame '
            f'(class token and patches), but got {num_tokens}. Use larger '
            'images or smaller patches, or disable it with shift_layers=().'
        )


class PatchShift(nn.Module):
    """Exchange of patch tokens between neighbouring frames.

    The patch shift of `TS2-Net <https://arxiv.org/abs/2207.07852>`_ as in
    EagleNet's release. With ``fold = L // 7``, tokens ``1, 1 + fold,
    1 + 2 * fold, ...`` come from the previous frame (the first frame keeps
    its own) and tokens ``4, 4 + fold, ...`` from the next one (the last frame
    keeps its own). If both patterns overlap, with fewer than 28 tokens, the
    next frame wins, except on the last frame. The class token, position 0,
    stays. No parameters.

    Example:
        >>> PatchShift()(torch.zeros(12, 50, 768), num_frames=12).shape
        torch.Size([12, 50, 768])
    """

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Shift the tokens of each video.

        Args:
            tokens (Tensor): Tokens of consecutive frames, shape
                ``(B * F, L, C)``.
            num_frames (int): Frames ``F`` per video.

        Returns:
            Tensor: New tensor of shifted tokens, shape ``(B * F, L, C)``.

        Raises:
            ValueError: If ``L`` is below 7, or the first axis is not a
                multiple of ``F``.
        """
        num_images, num_tokens, width = tokens.shape
        check_num_tokens(num_tokens)
        if num_frames < 1 or num_images % num_frames:
            raise ValueError(
                f'{num_images} frames cannot be split into videos of '
                f'num_frames={num_frames} frames.'
            )
        fold = num_tokens // NUM_FOLDS
        frames = torch.arange(num_frames, device=tokens.device).unsqueeze(1)
        places = torch.arange(num_tokens, device=tokens.device)  # (L,)
        # unlike slices, masks can be exported for any number of frames
        from_previous, from_next = (
            (places % fold == start % fold) & (places >= start)
            for start in (FROM_PREVIOUS_START, FROM_NEXT_START)
        )
        takes_next = from_next & (frames < num_frames - 1)  # (F, L)
        takes_previous = from_previous & (frames > 0) & ~takes_next
        step = takes_next.long() - takes_previous.long()
        source = ((frames + step) * num_tokens + places).flatten()  # (F * L,)
        videos = tokens.reshape(-1, num_frames * num_tokens, width)
        shifted = videos.index_select(1, source)  # (B, F * L, C)
        return shifted.view(num_images, num_tokens, width)  # (B * F, L, C)


class CLIPAttention(nn.MultiheadAttention):
    """Multi-head self-attention on the parameters of torch's module.

    A drop-in replacement for ``nn.MultiheadAttention``, for peft's LoRA and
    quantizers, with two differences: training and evaluation use the same
    code path, and the output projection is called as a module, so it can be
    wrapped or replaced.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        # the meta device skips initialisation and allocation
        super().__init__(
            attention.embed_dim,
            attention.num_heads,
            batch_first=True,
            device='meta',
        )
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Compute self-attention of tokens ``(N, L, C)``.

        ``key`` and ``value`` must be ``query`` itself and ``need_weights``
        False. ``is_causal`` overrides ``attn_mask``.
        """
        if key is not query or value is not query or need_weights:
            raise ValueError(
                'CLIPAttention is self-attention without weights: expected '
                'one tensor as query, key and value, and need_weights=False, '
                f'but got {"one tensor" if key is query is value else "more"} '
                f'and need_weights={need_weights}. Use '
                'nn.MultiheadAttention for anything else.'
            )
        num_items, length, width = query.shape
        projected = F.linear(
            query, self.in_proj_weight, self.in_proj_bias
        )  # (N, L, 3 * C)
        queries, keys, values = projected.view(
            num_items, length, 3, self.num_heads, self.head_dim
        ).permute(2, 0, 3, 1, 4)  # each (N, H, L, C / H)
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if is_causal else attn_mask,
            is_causal=is_causal,
        )
        mixed = mixed.transpose(1, 2).reshape(num_items, length, width)
        return self.out_proj(mixed), None  # (N, L, C)


class CLIPBlock(nn.Module):
    """Residual attention block made of the modules of an open_clip block.

    Parameter names and results are those of ``ResidualAttentionBlock``.
    Modules are only called, so each can be wrapped or replaced. The number of
    frames is an argument, so the patch shift is stateless.
    """

    def __init__(
        self,
        block: ResidualAttentionBlock,
        *,
        is_causal: bool,
        shift: bool = False,
    ) -> None:
        super().__init__()
        self.ln_1 = block.ln_1
        self.attn: nn.Module = CLIPAttention(block.attn)
        self.ls_1 = block.ls_1
        self.ln_2 = block.ln_2
        self.mlp = block.mlp
        self.ls_2 = block.ls_2
        self.is_causal = is_causal
        self.shift = PatchShift() if shift else None

    def forward(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Transform tokens ``(N, L, C)``."""
        normed = self.ln_1(tokens)
        if self.shift is not None:
            normed = self.shift(normed, num_frames)
        options: dict[str, Any] = dict(need_weights=False)
        if self.is_causal:
            options['is_causal'] = True
            if not isinstance(self.attn, CLIPAttention):
                # a wrapper may call torch's module, which needs the mask
                length = tokens.shape[1]
                mask = normed.new_full((length, length), float('-inf'))
                options['attn_mask'] = mask.triu_(1)
        attended = self.attn(normed, normed, normed, **options)[0]
        tokens = tokens + self.ls_1(attended)
        return tokens + self.ls_2(self.mlp(self.ln_2(tokens)))


# -- architectures ----------------------------------------------------------


def resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Config of an ``arch``, always with ``quick_gelu``.

    ``arch`` is the name of an open_clip model such as
    ``'ViT-B-32-quickgelu'``; an open_clip model folder, ``'local-dir:PATH'``
    or ``'hf-hub:OWNER/NAME'``; or a dict with some of :data:`ARCH_KEYS`.
    """
    if is_model_folder(arch):
        config = dict(_read_folder(arch)['model_cfg'])
        origin = f"The open_clip_config.json of arch='{arch}'"
        if 'timm_model_name' in config.get('vision_cfg', {}):
            # timm would download weights, only to be overwritten
            config['vision_cfg'] = {
                **config['vision_cfg'],
                'timm_model_pretrained': False,
            }
    elif isinstance(arch, str):
        name = arch.replace('/', '-')
        config = open_clip.get_model_config(name)
        origin = f"open_clip's config of '{name}'"
        if config is None:
            near = difflib.get_close_matches(name, open_clip.list_models(), 3)
            raise ValueError(
                f"open_clip has no model '{arch}'. Close names: "
                f'{near or "none"}; see open_clip.list_models().'
            )
    else:
        config, origin = dict(arch), 'arch'
        unknown = sorted(set(config) - set(ARCH_KEYS))
        if unknown:
            raise ValueError(
                f'arch takes the keys {ARCH_KEYS}, but got {unknown} too. '
                'Remove them or correct their spelling.'
            )
    if 'embed_dim' not in config:
        raise KeyError(
            f"{origin} has no 'embed_dim', the width of the features. Add it "
            'next to vision_cfg and text_cfg.'
        )
    return {
        'quick_gelu': False,
        **{key: config[key] for key in ARCH_KEYS if key in config},
    }


def is_model_folder(arch: str | Mapping[str, Any]) -> TypeGuard[str]:
    """Whether ``arch`` is a model folder, local or on the Hub."""
    return isinstance(arch, str) and parse_model_name(arch)[0] is not None


def _read_folder(arch: str) -> dict[str, Any]:
    """Read ``open_clip_config.json`` of a model folder."""
    schema, place = parse_model_name(arch)
    if schema == 'local-dir':
        path = osp.join(osp.expanduser(place), 'open_clip_config.json')
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"arch='{arch}' must be a model folder as open_clip writes "
                f'it, with open_clip_config.json, but there is no {path}. '
                'Correct the path.'
            )
    else:
        path = fetch_for_arch(arch, place, ['open_clip_config.json'])
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except ValueError as err:
        raise ValueError(
            f"arch='{arch}': {path} is not valid JSON: {err}. Download it "
            'again.'
        ) from err
    if 'model_cfg' not in content:  # as in open_clip's built-in configs
        content = {'model_cfg': content}
    return content


def fetch_for_arch(arch: str, place: str, names: Sequence[str]) -> str:
    """Return a file of a model folder on the Hub."""
    try:
        return fetch_from_hub(place, names)
    except (OSError, RuntimeError, ValueError) as err:
        raise DownloadError(
            f"arch='{arch}': {names[0]} is not in the Hugging Face cache and "
            f'could not be downloaded: {err}. Run `hf download {place}`, or '
            "use a copy as 'local-dir:PATH'.",
            setting=arch,
            instead='local-dir:/path/to/folder',
        ) from err


def pixel_statistics(
    arch: str | Mapping[str, Any], pretrained: str | bool | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels a tower was trained on.

    Those of the tag or the model folder; for a file or random weights those
    of the model's first tag; CLIP's if there is none.
    """
    config: Mapping[str, Any] = {}
    if is_model_folder(arch):
        config = _read_folder(arch).get('preprocess_cfg') or {}
    elif isinstance(arch, str):
        name = arch.replace('/', '-')
        tags = list_pretrained_tags_by_model(name)
        tag = pretrained if pretrained in tags else next(iter(tags), None)
        config = get_pretrained_cfg(name, tag) if tag else {}
    mean = config.get('mean') or OPENAI_DATASET_MEAN
    std = config.get('std') or OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


def keep_pixel_statistics(encoder: dict[str, Any]) -> None:
    """Make the pixel statistics implied by an open_clip tag explicit.

    Call this before removing the tag: sets ``mean`` and ``std``, if missing,
    in the config of a ``RegisteredEncoder`` with an open_clip backbone.
    """
    backbone = encoder.get('backbone')
    is_video = type_name(encoder) == 'RegisteredEncoder'
    if not is_video or not isinstance(backbone, Mapping):
        return
    library, _, arch = str(backbone.get('type')).partition('.')
    tag = backbone.get('pretrained')
    if library != 'open_clip' or not isinstance(tag, str):
        return
    stated = pixel_statistics(arch or backbone.get('arch', ''), tag)
    for name, value in zip(('mean', 'std'), stated, strict=True):
        if encoder.get(name) is None:
            encoder[name] = list(value)


# -- towers with random weights ---------------------------------------------


def build_tower(
    config: Mapping[str, Any],
    side: str,
    *,
    cast_dtype: torch.dtype | None = None,
    **changes: Any,
) -> Any:
    """Build any ``'vision'`` or ``'text'`` tower of open_clip.

    ``config`` comes from :func:`resolve_arch`; ``changes`` override entries
    of its ``vision_cfg`` or ``text_cfg`` unless None.
    """
    key = f'{side}_cfg'
    if key not in config:
        raise KeyError(
            f"arch needs '{key}' to build the {side} tower, but has only "
            f'{sorted(config)}. Add it.'
        )
    part = dict(config[key])
    part |= {name: v for name, v in changes.items() if v is not None}
    if part.get('hf_model_name'):
        raise ValueError(
            f'The {side} tower of this arch is the Hugging Face model '
            f'{part["hf_model_name"]!r}, which open_clip would download. Use '
            'HuggingFaceTextEncoder with a local folder of it.'
        )
    # CoCa's towers would return tokens besides the pooled output
    part.pop('output_tokens', None)
    build = _build_vision_tower if side == 'vision' else _build_text_tower
    try:
        return build(
            config['embed_dim'], part, config['quick_gelu'], cast_dtype
        )
    except TypeError as err:
        raise ValueError(
            f'open_clip takes no such {key}: {err}. Remove the key or '
            'correct its spelling.'
        ) from err


def build_vision_tower(
    config: Mapping[str, Any],
    *,
    image_size: int | Sequence[int] | None = None,
    shift_layers: Collection[int] = (),
    cast_dtype: torch.dtype | None = None,
) -> VisionTransformer:
    """Build CLIP's image tower with our blocks, and shift in some of them."""
    if image_size is not None:
        image_size = _checked_size(image_size, config.get('vision_cfg', {}))
    tower = build_tower(
        config, 'vision', cast_dtype=cast_dtype, image_size=image_size
    )
    if not isinstance(tower, VisionTransformer):
        raise _unsupported('vision', f'a {type(tower).__name__}')
    if tower.attn_pool is not None or tower.pool_type != 'tok':
        raise _unsupported('vision', 'a pooling other than the class token')
    num_layers = len(tower.transformer.resblocks)
    wrong = [i for i in shift_layers if not -num_layers <= i < num_layers]
    if wrong:
        raise ValueError(
            f'shift_layers must be in [{-num_layers}, {num_layers - 1}] for '
            f'a tower of {num_layers} layers, but got {wrong}.'
        )
    layers = {index % num_layers for index in shift_layers}
    if layers:
        check_num_tokens(tower.positional_embedding.shape[0])
        if not isinstance(tower.patch_dropout, nn.Identity):
            raise _unsupported(
                'vision', 'patch_dropout, which breaks the grid'
            )
    _replace_blocks(tower, 'vision', is_causal=False, shift_layers=layers)
    return tower


def build_text_tower(
    config: Mapping[str, Any],
    *,
    max_words: int | None = None,
    cast_dtype: torch.dtype | None = None,
) -> TextTransformer:
    """Build CLIP's text tower with our blocks and ``max_words`` positions."""
    if max_words is not None and max_words < 1:
        raise ValueError(f'max_words must be positive, but got {max_words}.')
    tower = build_tower(
        config, 'text', cast_dtype=cast_dtype, context_length=max_words
    )
    if tower.attn_mask is None:
        raise _unsupported('text', 'bidirectional attention')
    if tower.cls_emb is not None or tower.pool_type != 'argmax':
        raise _unsupported('text', 'a pooling other than the end token')
    if not isinstance(tower.text_projection, nn.Parameter):
        raise _unsupported('text', 'no plain projection matrix')
    _replace_blocks(tower, 'text', is_causal=True)
    return tower


def _checked_size(
    size: int | Sequence[int], vision_cfg: Mapping[str, Any]
) -> tuple[int, int]:
    """Height and width, checked to be multiples of the patch size."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    patch = vision_cfg.get('patch_size', 16)
    patches = (patch, patch) if isinstance(patch, int) else tuple(patch)
    if len(pair) != 2 or any(
        not isinstance(side, int) or side < 1 or side % step
        for side, step in zip(pair, patches, strict=True)
    ):
        raise ValueError(
            'image_size must be one or two multiples of the patch size '
            f'{patch}, in pixels, but got {size!r}.'
        )
    return pair


def _unsupported(side: str, reason: str) -> ValueError:
    return ValueError(
        f"The {side} tower must be CLIP's plain transformer, but this arch "
        f'has {reason}. Choose a ViT model of open_clip, for example '
        "'ViT-B-32-quickgelu'."
    )


def _replace_blocks(
    tower: VisionTransformer | TextTransformer,
    side: str,
    *,
    is_causal: bool,
    shift_layers: Collection[int] = (),
) -> None:
    """Replace open_clip's blocks by ours, with the same parameters."""
    blocks = tower.transformer.resblocks
    for index, block in enumerate(blocks):
        if type(block) is not ResidualAttentionBlock:
            raise _unsupported(side, f'blocks of type {type(block).__name__}')
        blocks[index] = CLIPBlock(
            block, is_causal=is_causal, shift=index in shift_layers
        )
