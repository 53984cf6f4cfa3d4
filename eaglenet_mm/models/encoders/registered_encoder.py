"""Video and text encoders based on any registered backbone."""

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
#: Backbone arguments that set the clip length.
LENGTH_KEYS = ('num_frames', 't_size')


@MODELS.register_module()
class RegisteredEncoder(BaseModule):
    """Video encoder with a backbone from MMEngine, timm or open_clip.

    An image backbone gives one vector per frame; a clip backbone one per
    temporal step, of which there may be fewer than frames. Feature maps and
    tokens are averaged and projected to the width of the head.

    Padded frames are replaced by copies of the last real frame, so features
    depend on real frames only, even if convolutions mix frames or batch norm
    mixes items. A temporal step is real if it covers a real frame.

    The constructor runs the backbone once to find its width and temporal
    steps. Unused parameters, such as those of an unused branch, are logged
    and frozen, because ``DistributedDataParallel`` expects a gradient for all
    others.

    Args:
        backbone (dict): Arguments and ``type`` of the backbone:
            ``'mmaction.ResNet'`` or a name of another registry;
            ``'timm.resnet18'`` (arguments of ``timm.create_model``);
            ``'open_clip.ViT-B-16-SigLIP'`` or ``'open_clip'`` with ``arch``,
            optionally with ``pretrained`` and ``resize_positions`` of
            :class:`~.clip_encoder.CLIPEncoder`; or a class.
        embed_dim (int, optional): Width of the features. Default: None, that
            of the backbone without projection.
        layout (str): ``'frames'`` for image backbones, input
            ``(B * F, 3, H, W)``; ``'clip'`` for clip backbones, input
            ``(B, 3, F, H, W)``. Default: ``'frames'``.
        num_input_frames (int, optional): Frames ``F`` per video. Default:
            with ``layout='clip'`` the ``num_frames`` or ``t_size`` of the
            backbone, an error if it has neither; otherwise any number.
        image_size (int or tuple, optional): Height and width in pixels.
            Default: that of the backbone if known, else 224.
        mean (Sequence[float], optional): Mean of red, green and blue in the
            training images of the backbone, in units of [0, 1]; the
            preprocessor uses it too. Default: that of timm or open_clip, else
            ImageNet's.
        std (Sequence[float], optional): Their standard deviation, likewise.
        channel_order (str): Colour order that the backbone expects,
            ``'rgb'`` or ``'bgr'``. Default: ``'rgb'``.
        checkpoint (str, optional): Local file with weights of the backbone,
            or of a model that contains it. Default: None.
        frozen (bool or int): True freezes the backbone and keeps it in
            evaluation mode; an int sets its ``frozen_stages``.
            Default: False.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

    Attributes:
        num_frames (int, optional): Vectors per video: temporal steps, or
            ``num_input_frames`` with ``layout='frames'``.

    Raises:
        FileNotFoundError: If ``checkpoint`` does not exist.
        ImportError: If the package of the backbone is not installed.
        ValueError: If a name or option is unknown, the backbone does not
            accept the frames or the layout, or the weights do not fit.

    Example:
        >>> encoder = RegisteredEncoder(
        ...     dict(type='timm.resnet18'), 512, image_size=64
        ... )
        >>> encoder(torch.zeros(2, 12, 3, 64, 64)).frames.shape
        torch.Size([2, 12, 512])
    """

    #: Feature maps and tokens are averaged.
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
        #: Height and width of the frames in pixels.
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
        """Initialise backbones that leave this to MMEngine.

        Keeps the weights of timm, open_clip and checkpoints.
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
            pixels (Tensor): Normalised RGB frames, shape
                ``(Bv, F, 3, H, W)``.
            frame_mask (Tensor, optional): True for real frames, shape
                ``(Bv, F)``. Default: None, all True.

        Returns:
            VideoFeatures: ``frames``, shape ``(Bv, T, D)``, not normalised,
            in float32 (float64 for a float64 encoder), and the mask of the
            ``T`` frames or temporal steps.

        Raises:
            ValueError: If frames or mask have the wrong shape.
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
        """Run the backbone and pool to one vector per step, ``(B, T, C)``."""
        if self.flips_channels:
            pixels = pixels.flip(2)
        if self.is_clip:
            return pool_steps(self.backbone(pixels.transpose(1, 2)))
        feats = pool_frames(self.backbone(pixels.flatten(0, 1)))
        return feats.unflatten(0, pixels.shape[:2])  # (B, F, C)

    def _find_length(
        self, backbone: Mapping[str, Any], num_frames: int | None
    ) -> int | None:
        """Frames per video, as set or as stated by the backbone."""
        if num_frames is None and self.is_clip:
            stated = [backbone[k] for k in LENGTH_KEYS if k in backbone]
            num_frames = stated[0] if stated else None
        if (num_frames is None and self.is_clip) or (
            num_frames is not None and num_frames < 1
        ):
            raise ValueError(
                "layout='clip' needs num_input_frames of at least 1, the "
                f"clip length of the backbone '{backbone.get('type')}', but "
                f'got {num_frames}. Set it to num_frames of the preprocessor.'
            )
        return num_frames

    def _probe(self, built: Backbone) -> tuple[int, int]:
        """Run the backbone once; return its width and temporal steps."""
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
                'num_input_frames and image_size to what the backbone '
                'expects.'
            ) from err
        if unused:
            print_log(
                f"{len(unused)} parameters of the backbone '{built.name}' "
                'are unused and were frozen: '
                f'{name_some(unused)}.',
                logger='current',
                level=logging.WARNING,
            )
        if not isinstance(self.frozen, bool):
            if not hasattr(self.backbone, 'frozen_stages'):
                raise ValueError(
                    f'frozen={self.frozen} asks for frozen stages, but the '
                    f"backbone '{built.name}' has no frozen_stages. Set "
                    'frozen=True or False.'
                )
            self.backbone.frozen_stages = self.frozen  # applied by train()
        return feats.shape[2], feats.shape[1]


@MODELS.register_module()
class RegisteredTextEncoder(BaseModule):
    """Text encoder with any open_clip text tower.

    For towers such as SigLIP's, which attend in both directions and pool at
    the last position: pass ids of the full ``context_length``, padded by the
    model's own tokenizer. For CLIP's towers, prefer
    :class:`~.clip_encoder.CLIPTextEncoder`, which also offers token features
    and partial freezing.

    Args:
        backbone (dict): ``type='open_clip.NAME'``, or ``type='open_clip'``
            with ``arch``; optionally ``pretrained`` and ``resize_positions``
            of :class:`~.clip_encoder.CLIPEncoder`.
        embed_dim (int, optional): Width of the features, projected by a
            linear layer. Default: None, the tower's width without projection.
        max_words (int, optional): Number of position embeddings. Default:
            the architecture's ``context_length``.
        frozen (bool): Freeze the tower and keep it in evaluation mode.
            Default: False.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.

    Raises:
        KeyError: If ``arch`` has no ``text_cfg``.
        ValueError: If the backbone is not from open_clip, or the weights do
            not fit.

    Example:
        >>> encoder = RegisteredTextEncoder(dict(type='open_clip.ViT-S-32'))
        >>> encoder(torch.zeros(2, 77, dtype=torch.int64)).embeds.shape
        torch.Size([2, 384])
    """

    #: Towers return only the pooled feature.
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
                'RegisteredTextEncoder takes only open_clip text towers, '
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
            token_ids (Tensor): Integer ids, shape ``(Bt, L)``, ``L`` at most
                ``context_length``.

        Returns:
            TextFeatures: ``embeds``, shape ``(Bt, D)``, not normalised, in
            float32 (float64 for a float64 encoder).

        Raises:
            TypeError: If the ids are not integers.
            ValueError: If the shape is wrong or, on the CPU only, an id is
                outside the vocabulary.
        """
        check_token_ids(token_ids, self.context_length, self.vocab_size)
        embeds = self.projection(self.tower(token_ids))
        return TextFeatures(embeds=at_least_float32(embeds))


# -- helpers of the encoders ------------------------------------------------


def make_projection(channels: int, embed_dim: int | None) -> nn.Module:
    """Linear layer to ``embed_dim``, or the identity for None."""
    if embed_dim is None:
        return nn.Identity()
    return nn.Linear(channels, embed_dim)


def run_once(
    module: nn.Module, encode: Callable[[], Tensor]
) -> tuple[Tensor, list[str]]:
    """Encode in evaluation mode; freeze and return unused parameters."""
    module.eval()  # unchained: mmaction's may return None
    # build the graph, but save no tensors
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
    """Names of trainable parameters that ``output`` does not depend on.

    Empty if activation checkpointing hides the graph.
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
    """Choose the feature tensor from nested tuples, lists and dicts.

    The one with the most channels, then the most axes, then the last one:
    the deepest stage, the slow pathway, the map rather than the class token.
    """
    tensors = [x for x in _leaves(output) if 2 <= x.ndim <= 5]
    if not tensors:
        raise ValueError(
            'Expected a backbone to return a tensor of 2 to 5 axes, possibly '
            f'in tuples, but got a {type(output).__name__}. Change the '
            'backbone or its options.'
        )
    # max() returns the first of equal ones
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
    """Mean over positions or tokens of images, ``(N, C)``."""
    feats = main_tensor(output)  # (N, C), (N, L, C) or (N, C, h, w)
    if feats.ndim == 5:
        raise ValueError(
            "layout='frames' expects features of images, (N, C), (N, L, C) "
            f'or (N, C, h, w), but the backbone gave {tuple(feats.shape)}. '
            "Set layout='clip'."
        )
    if feats.ndim == 4:
        return feats.flatten(2).mean(2)
    return feats.mean(1) if feats.ndim == 3 else feats


def pool_steps(output: Any) -> Tensor:
    """Mean over positions or tokens of clips, ``(B, T, C)``.

    ``T`` is 1 if the backbone has pooled time or has spatio-temporal tokens.
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
    """Replace padded frames by the last real frame before, or the first.

    Takes pixels ``(B, F, 3, H, W)`` and a mask ``(B, F)``.
    """
    places = torch.arange(pixels.shape[1], device=pixels.device)
    # cumulative maximum; ONNX does not support cummax
    real = frame_mask.unsqueeze(1) & (places <= places.unsqueeze(1))
    source = torch.where(real, places, 0).amax(2)  # (B, F)
    rows = torch.arange(len(pixels), device=pixels.device).unsqueeze(1)
    return pixels[rows, source]


def _check_sizes(
    image_size: int | Sequence[int] | None, embed_dim: int | None
) -> None:
    """Raise an error for invalid sizes."""
    sides = [image_size] if isinstance(image_size, int) else image_size or ()
    if len(sides) > 2 or not all(side > 0 for side in sides):
        raise ValueError(
            'image_size must be a positive number of pixels, or height and '
            f'width, but got {image_size}.'
        )
    if embed_dim is not None and embed_dim < 1:
        raise ValueError(
            'embed_dim must be at least 1, or None for no projection, but got '
            f'{embed_dim}.'
        )
