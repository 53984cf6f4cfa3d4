"""Frames and sentences to features by any backbone that has a name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.data_preprocessor import check_statistics
from eaglenet_mm.models.encoders.backbones import (
    Backbone,
    build_backbone,
    build_open_clip_tower,
    load_backbone_weights,
)
from eaglenet_mm.models.encoders.clip_encoder import (
    check_frames,
    check_token_ids,
)
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.name_lists import name_some

LAYOUTS = ('frames', 'clip')
CHANNEL_ORDERS = ('rgb', 'bgr')
#: Names under which backbones take the length of their clips.
LENGTH_KEYS = ('num_frames', 't_size')


@MODELS.register_module()
class RegisteredEncoder(BaseModule):
    """Encode videos by any backbone of MMEngine's registries, timm, open_clip.

    A two-dimensional backbone sees every frame by itself and gives one vector
    a frame; a three-dimensional one sees the clip and gives one vector a
    temporal step, of which there may be fewer. Maps and tokens are averaged,
    and a linear layer brings the vectors to the width of the head.

    Padded frames are shown to the backbone as copies of the last real frame,
    so that features depend on real frames alone, also where convolutions mix
    frames and batch norm mixes items. A temporal step is real if it covers a
    real frame.

    At construction one item passes through the backbone, which tells its
    width and temporal steps. Parameters without a part in the features, such
    as the norm of an unused branch, are frozen and named in the log, because
    ``DistributedDataParallel`` waits for the gradient of all others.

    Args:
        backbone (dict): Arguments and ``type`` of the backbone:
            ``'mmaction.ResNet'`` or a name of another registry;
            ``'timm.resnet18'`` (arguments of ``timm.create_model``);
            ``'open_clip.ViT-B-16-SigLIP'`` or ``'open_clip'`` with ``arch``,
            optionally with ``pretrained`` and ``resize_positions`` of
            :class:`~.clip_encoder.CLIPEncoder`; or a class.
        embed_dim (int, optional): Width of the features. Default: None:
            that of the backbone, without a projection, as for both towers of
            one model.
        layout (str): ``'frames'`` for backbones of images, input
            ``(B * F, 3, H, W)``; ``'clip'`` for backbones of clips, input
            ``(B, 3, F, H, W)``.
        num_input_frames (int, optional): Frames ``F`` of a video. With
            ``layout='clip'`` it defaults to ``num_frames`` or ``t_size`` of
            the backbone and is needed; with ``'frames'`` None allows any.
        image_size (int or tuple, optional): Height and width of the frames,
            pixels. Default: what the backbone states, or else 224.
        mean (Sequence[float], optional): Mean of the pixels the backbone was
            trained on, red, green, blue, in [0, 1] units. Default: what
            timm or open_clip state, ImageNet's otherwise. The preprocessor
            follows it.
        std (Sequence[float], optional): Their deviations, likewise.
        channel_order (str): Order of the colours the backbone expects,
            ``'rgb'`` or ``'bgr'``. Default: ``'rgb'``.
        checkpoint (str, optional): Local file with weights of the backbone,
            or of a model around it. Default: None.
        frozen (bool or int): True freezes the backbone and keeps it in
            evaluation mode; a number freezes so many first stages of a
            backbone that knows ``frozen_stages``. Default: False.
        init_cfg (dict, optional): As in MMEngine. Default: None.

    Attributes:
        num_frames (int, optional): Vectors a video has: temporal steps, or
            ``num_input_frames`` with ``layout='frames'``.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ImportError: If the package of the backbone is not installed.
        ValueError: If a name or option is unknown, the backbone does not
            take such frames, the layout is the other one, or weights do not
            fit.

    Example:
        >>> encoder = RegisteredEncoder(
        ...     dict(type='timm.resnet18'), 512, image_size=64
        ... )
        >>> encoder(torch.zeros(2, 12, 3, 64, 64)).frames.shape
        torch.Size([2, 12, 512])
    """

    #: Backbones give maps and tokens of all kinds, which are averaged.
    output_patches = False

    def __init__(
        self,
        backbone: Mapping[str, Any],
        embed_dim: int | None = None,
        *,
        layout: str = 'frames',
        num_input_frames: int | None = None,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: str = 'rgb',
        checkpoint: str | None = None,
        frozen: bool | int = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, allowed in (
            ('layout', layout, LAYOUTS),
            ('channel_order', channel_order, CHANNEL_ORDERS),
        ):
            if value not in allowed:
                raise ValueError(
                    f'{name} must be one of {allowed}, but got {value!r}.'
                )
        _check_sizes(image_size, embed_dim)
        self.is_clip = layout == 'clip'
        self.flips_channels = channel_order == 'bgr'
        self.frozen = frozen
        self.num_input_frames = self._find_length(backbone, num_input_frames)
        built = build_backbone(backbone)
        size = image_size or built.image_size or 224
        height, width = (size, size) if isinstance(size, int) else size
        #: Height and width of the frames, pixels.
        self.image_size: tuple[int, int] = (height, width)
        self.mean = tuple(built.mean if mean is None else mean)
        self.std = tuple(built.std if std is None else std)
        check_statistics(self.mean, self.std)
        self.backbone_name = built.name
        self.backbone: Any = built.module
        self._keeps_weights = built.initialises_itself
        if checkpoint is not None:
            load_backbone_weights(self.backbone, checkpoint, built.name)
            self._keeps_weights = True
        channels, steps = self._probe(built)
        self.num_frames = steps if self.is_clip else self.num_input_frames
        self.embed_dim = embed_dim or channels
        self.projection = make_projection(channels, embed_dim)
        self.train()

    def init_weights(self) -> None:
        """Draw the weights of backbones that leave this to MMEngine.

        timm's and open_clip's are complete after construction, and loaded
        weights must stay: their own ``init_weights`` would draw them anew.
        """
        if not self._keeps_weights:
            super().init_weights()

    def train(self, mode: bool = True) -> RegisteredEncoder:
        """Set the mode; frozen parts stay frozen and in evaluation mode."""
        super().train(mode)
        if self.frozen is True:
            self.backbone.requires_grad_(False)
            self.backbone.eval()
        return self

    def forward(
        self, pixels: Tensor, frame_mask: Tensor | None = None
    ) -> VideoFeatures:
        """Encode videos.

        Args:
            pixels (Tensor): Normalised frames, colours in the order red,
                green, blue, shape ``(Bv, F, 3, H, W)``.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``. Default: all True.

        Returns:
            VideoFeatures: ``frames`` of shape ``(Bv, T, D)``, not
            normalised, in float32 (float64 if the encoder is), and the mask
            of the ``T`` frames or temporal steps.

        Raises:
            ValueError: If frames or mask have another number, shape or size.
        """
        frame_mask = check_frames(pixels, frame_mask, self.image_size)
        length = self.num_input_frames
        if length is not None and pixels.shape[1] != length:
            raise ValueError(
                f"The backbone '{self.backbone_name}' needs videos of "
                f'num_input_frames={length} frames, but got '
                f'{pixels.shape[1]}. Set num_frames of the preprocessor to '
                f'{length}.'
            )
        feats = self._pooled(repeat_last_real(pixels, frame_mask))
        feats = at_least_float32(self.projection(feats))  # (Bv, T, D)
        if self.is_clip:
            frame_mask = pool_mask(frame_mask, feats.shape[1])
        return VideoFeatures(frames=feats, frame_mask=frame_mask)

    def _pooled(self, pixels: Tensor) -> Tensor:
        """Run the backbone, return one vector a step, ``(B, T, C)``."""
        if self.flips_channels:
            pixels = pixels.flip(2)
        if self.is_clip:
            return pool_steps(self.backbone(pixels.transpose(1, 2)))
        feats = pool_frames(self.backbone(pixels.flatten(0, 1)))
        return feats.unflatten(0, pixels.shape[:2])  # (B, F, C)

    def _find_length(
        self, backbone: Mapping[str, Any], num_frames: int | None
    ) -> int | None:
        """Frames of a video, as given or as the backbone has them."""
        if num_frames is None and self.is_clip:
            stated = [backbone[k] for k in LENGTH_KEYS if k in backbone]
            num_frames = stated[0] if stated else None
        if (num_frames is None and self.is_clip) or (
            num_frames is not None and num_frames < 1
        ):
            raise ValueError(
                "layout='clip' needs num_input_frames of at least 1, the "
                'frames of a video that the backbone '
                f"'{backbone.get('type')}' sees at once, but got "
                f'{num_frames}. Set it to num_frames of the preprocessor.'
            )
        return num_frames

    def _probe(self, built: Backbone) -> tuple[int, int]:
        """Pass one item, return the width and the temporal steps."""
        length = self.num_input_frames or 1
        item = torch.zeros(1, length, 3, *self.image_size)
        try:
            feats, unused = run_once(self.backbone, lambda: self._pooled(item))
        except Exception as err:
            raise ValueError(
                f"The backbone '{built.name}' cannot encode {length} "
                f'frame(s) of {self.image_size[0]} x {self.image_size[1]} '
                f'pixels in the layout {"clip" if self.is_clip else "frames"}'
                f' ({type(err).__name__}: {str(err)[:300]}). Set layout, '
                'num_input_frames and image_size to what the backbone was '
                'built for.'
            ) from err
        if unused:
            print_log(
                f"{len(unused)} parameters of the backbone '{built.name}' "
                'have no part in the features and are frozen: '
                f'{name_some(unused)}.',
                logger='current',
                level=logging.WARNING,
            )
        if not isinstance(self.frozen, bool):
            if not hasattr(self.backbone, 'frozen_stages'):
                raise ValueError(
                    f'frozen={self.frozen} asks for frozen stages, but the '
                    f"backbone '{built.name}' knows none. Set frozen=True or "
                    'False.'
                )
            self.backbone.frozen_stages = self.frozen  # applied by train()
        return feats.shape[2], feats.shape[1]


@MODELS.register_module()
class RegisteredTextEncoder(BaseModule):
    """Encode token ids by a text tower of open_clip that is not plain CLIP.

    For SigLIP and its like, which see the whole sentence and pool at the last
    place: give them ids of their full ``context_length``, padded by their own
    tokenizer. For CLIP's own towers :class:`~.clip_encoder.CLIPTextEncoder`
    also has features of tokens and freezing by layers.

    Args:
        backbone (dict): ``type='open_clip.NAME'``, or ``type='open_clip'``
            with ``arch``; optionally ``pretrained`` and ``resize_positions``
            of :class:`~.clip_encoder.CLIPEncoder`.
        embed_dim (int, optional): Width of the features, reached by a linear
            layer. Default: None: the tower's own, without the layer.
        max_words (int, optional): Rows of the positional table. Default:
            the architecture's ``context_length``.
        frozen (bool): Whether the tower is frozen and stays in evaluation
            mode. Default: False.
        init_cfg (dict, optional): As in MMEngine. Default: None.

    Raises:
        KeyError: If ``arch`` has no ``text_cfg``.
        ValueError: If the backbone is no tower of open_clip, or weights do
            not fit.

    Example:
        >>> encoder = RegisteredTextEncoder(dict(type='open_clip.ViT-S-32'))
        >>> encoder(torch.zeros(2, 77, dtype=torch.int64)).embeds.shape
        torch.Size([2, 384])
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
        self.projection = make_projection(channels, embed_dim)
        self.train()

    def train(self, mode: bool = True) -> RegisteredTextEncoder:
        """Set the mode; a frozen tower stays in evaluation mode."""
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
        return TextFeatures(embeds=at_least_float32(embeds))


# -- helpers of the encoders ------------------------------------------------


def make_projection(channels: int, embed_dim: int | None) -> nn.Module:
    """A linear layer to the width of the features, or none."""
    if embed_dim is None:
        return nn.Identity()
    return nn.Linear(channels, embed_dim)


def run_once(
    module: nn.Module, encode: Callable[[], Tensor]
) -> tuple[Tensor, list[str]]:
    """Encode in evaluation mode; freeze and name idle parameters."""
    module.eval()  # of mmaction, it may not return itself
    # a graph that knows its parameters and costs no memory
    keep_nothing = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: None, lambda nothing: nothing
    )
    with torch.enable_grad(), keep_nothing:
        feats = encode()
    unused = unused_parameters(feats, module)
    for name in unused:
        module.get_parameter(name).requires_grad_(False)
    return feats, unused


def unused_parameters(output: Tensor, module: nn.Module) -> list[str]:
    """Parameters that require a gradient and would get none from an output.

    Empty where recomputation hides the graph.
    """
    used: set[int] = set()
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if 'CheckpointFunction' in node.name():
            return []
        variable = getattr(node, 'variable', None)
        if variable is not None:
            used.add(id(variable))
        waiting.extend(following for following, _ in node.next_functions)
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in used
    ]


def main_tensor(output: Any) -> Tensor:
    """Choose the tensor of features in nested tuples, lists and dicts.

    The one with most channels, among these the one with most axes, among
    these the last: the deepest stage, the slow pathway, the map beside the
    class token.
    """
    tensors = [x for x in _leaves(output) if 2 <= x.ndim <= 5]
    if not tensors:
        raise ValueError(
            'Expected a backbone to give a tensor of 2 to 5 axes, possibly '
            f'in tuples, but got a {type(output).__name__}. Choose another '
            'backbone or other options of it.'
        )
    # of equal ones max() takes the first
    return max(
        reversed(tensors),
        key=lambda x: (x.shape[1 if x.ndim > 3 else -1], x.ndim),
    )


def _leaves(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _leaves(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _leaves(part)


def pool_frames(output: Any) -> Tensor:
    """Mean over places or tokens of images, ``(N, C)``."""
    feats = main_tensor(output)  # (N, C), (N, L, C) or (N, C, h, w)
    if feats.ndim == 5:
        raise ValueError(
            "layout='frames' expects features of images, (N, C), (N, L, C) "
            f'or (N, C, h, w), but the backbone gives {tuple(feats.shape)}. '
            "Set layout='clip'."
        )
    if feats.ndim == 4:
        return feats.flatten(2).mean(2)
    return feats.mean(1) if feats.ndim == 3 else feats


def pool_steps(output: Any) -> Tensor:
    """Mean over places or tokens of clips, ``(B, T, C)``.

    Where the backbone has pooled time, or mixed it with places into tokens,
    ``T`` is 1.
    """
    feats = main_tensor(output)
    if feats.ndim == 5:  # (B, C, T, h, w)
        return feats.flatten(3).mean(3).transpose(1, 2)
    return pool_frames(feats).unsqueeze(1)  # (B, 1, C)


def pool_mask(frame_mask: Tensor, num_steps: int) -> Tensor:
    """Whether each of T temporal steps covers a real frame, ``(B, T)``.

    Step ``t`` covers the frames ``floor(t F / T)`` to
    ``ceil((t + 1) F / T) - 1``.
    """
    return F.adaptive_max_pool1d(frame_mask.float(), num_steps) > 0


def repeat_last_real(pixels: Tensor, frame_mask: Tensor) -> Tensor:
    """Show each padded frame as the nearest real one before it, or the first.

    Of pixels ``(B, F, 3, H, W)`` and a mask ``(B, F)``.
    """
    places = torch.arange(pixels.shape[1], device=pixels.device)
    # a maximum over the frames so far; of cummax ONNX knows nothing
    real = frame_mask.unsqueeze(1) & (places <= places.unsqueeze(1))
    source = torch.where(real, places, 0).amax(2)  # (B, F)
    rows = torch.arange(len(pixels), device=pixels.device).unsqueeze(1)
    return pixels[rows, source]


def _check_sizes(
    image_size: int | Sequence[int] | None, embed_dim: int | None
) -> None:
    """Refuse sizes of frames and features that cannot be."""
    sides = [image_size] if isinstance(image_size, int) else image_size or ()
    if len(sides) > 2 or not all(side > 0 for side in sides):
        raise ValueError(
            'image_size must be a number of pixels or height and width, but '
            f'got {image_size}.'
        )
    if embed_dim is not None and embed_dim < 1:
        raise ValueError(
            'embed_dim must be at least 1, or None for no projection, but got '
            f'{embed_dim}.'
        )
