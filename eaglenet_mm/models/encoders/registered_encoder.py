"""Frames to features by any backbone that has a name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from eaglenet_mm.models.data_preprocessor import check_statistics
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import VideoFeatures
from eaglenet_mm.utils.name_lists import name_some

from .backbone_output import (
    check_sizes,
    keep_nothing,
    pool_frames,
    pool_mask,
    pool_steps,
    repeat_last_real,
    unused_parameters,
)
from .backbone_weights import load_backbone_weights
from .backbones import Backbone, build_backbone

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
        backbone (dict): ``type`` and arguments, see
            :func:`~.backbones.build_backbone`: ``'mmaction.ResNet'`` or a
            name of another registry, ``'timm.resnet18'``,
            ``'open_clip.ViT-B-16-SigLIP'``.
        embed_dim (int, optional): Width of the features. Defaults to None:
            that of the backbone, without a projection, as for both towers of
            one model.
        layout (str): ``'frames'`` for backbones of images, input
            ``(B * F, 3, H, W)``; ``'clip'`` for backbones of clips, input
            ``(B, 3, F, H, W)``.
        num_input_frames (int, optional): Frames ``F`` of a video. With
            ``layout='clip'`` it defaults to ``num_frames`` or ``t_size`` of
            the backbone and is needed; with ``'frames'`` None allows any.
        image_size (int or tuple, optional): Height and width of the frames,
            pixels. Defaults to what the backbone states, or else 224.
        mean (Sequence[float], optional): Mean of the pixels the backbone was
            trained on, red, green, blue, in [0, 1] units. Defaults to what
            timm or open_clip state, ImageNet's otherwise. The preprocessor
            follows it.
        std (Sequence[float], optional): Their deviations, likewise.
        channel_order (str): Order of the colours the backbone expects,
            ``'rgb'`` or ``'bgr'``. Defaults to ``'rgb'``.
        checkpoint (str, optional): Local file with weights of the backbone,
            see :func:`~.backbone_weights.load_backbone_weights`. Defaults to
            None.
        frozen (bool or int): True freezes the backbone and keeps it in
            evaluation mode; a number freezes so many first stages of a
            backbone that knows ``frozen_stages``. Defaults to False.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.

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
        check_sizes(image_size, embed_dim)
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
        self.projection: nn.Module = nn.Identity()
        if embed_dim is not None:
            self.projection = nn.Linear(channels, embed_dim)
        self.train()

    def init_weights(self) -> None:
        """Draw the weights of backbones that leave this to MMEngine.

        timm's and open_clip's are complete after construction, and loaded
        weights must stay: their own ``init_weights`` would draw them anew.
        """
        if not self._keeps_weights:
            super().init_weights()

    def train(self, mode: bool = True) -> RegisteredEncoder:
        """Set the mode; frozen parts stay frozen and in evaluation mode.

        Args:
            mode (bool): Whether to train. Defaults to True.

        Returns:
            RegisteredEncoder: Itself.
        """
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
                ``(Bv, F)``. Defaults to all True.

        Returns:
            VideoFeatures: ``frames`` of shape ``(Bv, T, D)``, not
            normalised, in float32 (float64 if the encoder is), and the mask
            of the ``T`` frames or temporal steps.

        Raises:
            ValueError: If frames or mask have another number, shape or size.
        """
        frame_mask = self._check(pixels, frame_mask)
        feats = self._pooled(repeat_last_real(pixels, frame_mask))
        feats = self.projection(feats)  # (Bv, T, D)
        if feats.dtype in (torch.float16, torch.bfloat16):
            feats = feats.float()
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
        self.backbone.eval()  # of mmaction, it may not return itself
        try:
            with torch.enable_grad(), keep_nothing():
                feats = self._pooled(item)
        except Exception as err:
            raise ValueError(
                f"The backbone '{built.name}' cannot encode {length} "
                f'frame(s) of {self.image_size[0]} x {self.image_size[1]} '
                f'pixels in the layout {"clip" if self.is_clip else "frames"}'
                f' ({type(err).__name__}: {str(err)[:300]}). Set layout, '
                'num_input_frames and image_size to what the backbone was '
                'built for.'
            ) from err
        self._freeze_stages()
        unused = unused_parameters(feats, self.backbone)
        for name in unused:
            self.backbone.get_parameter(name).requires_grad_(False)
        if unused:
            print_log(
                f"{len(unused)} parameters of the backbone '{built.name}' "
                'have no part in the features and are frozen: '
                f'{name_some(unused)}.',
                logger='current',
                level=logging.WARNING,
            )
        return feats.shape[2], feats.shape[1]

    def _freeze_stages(self) -> None:
        """Tell the backbone how many stages it has to freeze."""
        if isinstance(self.frozen, bool):
            return
        if not hasattr(self.backbone, 'frozen_stages'):
            raise ValueError(
                f'frozen={self.frozen} asks for frozen stages, but the '
                f"backbone '{self.backbone_name}' knows none. Set "
                'frozen=True or False.'
            )
        self.backbone.frozen_stages = self.frozen  # applied by its train()

    def _check(self, pixels: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Check the input, return its mask."""
        expected = (3, *self.image_size)
        if pixels.ndim != 5 or tuple(pixels.shape[2:]) != expected:
            raise ValueError(
                'pixels must have the shape (videos, frames, '
                f'{", ".join(map(str, expected))}) for the backbone '
                f"'{self.backbone_name}', but got {tuple(pixels.shape)}. Set "
                'size of ResizeCenterCrop to the image_size of the encoder.'
            )
        length = self.num_input_frames
        if length is not None and pixels.shape[1] != length:
            raise ValueError(
                f"The backbone '{self.backbone_name}' needs videos of "
                f'num_input_frames={length} frames, but got '
                f'{pixels.shape[1]}. Set num_frames of the preprocessor to '
                f'{length}.'
            )
        if frame_mask is None:
            return pixels.new_ones(pixels.shape[:2], dtype=torch.bool)
        if frame_mask.shape != pixels.shape[:2]:
            raise ValueError(
                f'frame_mask must have the shape {tuple(pixels.shape[:2])} '
                f'of the frames, but got {tuple(frame_mask.shape)}.'
            )
        return frame_mask
