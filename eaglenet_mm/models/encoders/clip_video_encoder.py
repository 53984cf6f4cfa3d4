"""Frames to features by CLIP's image tower with patch shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import VideoFeatures

from .clip_encoder import CLIPEncoder
from .clip_tower import build_vision_tower, is_model_folder
from .open_clip_towers import pixel_statistics


@MODELS.register_module()
class CLIPVideoEncoder(CLIPEncoder):
    """Encode every frame by CLIP's image tower, with patch shift.

    The tower is that of `CLIP <https://arxiv.org/abs/2103.00020>`_, the
    shift that of `TS2-Net <https://arxiv.org/abs/2207.07852>`_.
    A frame's feature is the projected class token after the last norm, not
    normalised. In the blocks named by ``shift_layers`` the attention input
    of a frame holds some patch tokens of its neighbours, see
    :class:`~.patch_shift.PatchShift`; the residual branch does not.

    Padded frames are encoded like any other: as in the release, their zero
    pixels go through the tower, and the patch shift mixes them into the last
    real frame.

    Args:
        arch (str or dict): Name of an open_clip model, a model folder, or a
            dict with ``embed_dim``, ``vision_cfg`` and ``quick_gelu``, see
            :class:`CLIPEncoder`.
        pretrained (str or bool, optional): See :class:`CLIPEncoder`.
            Defaults to None, the weights of a model folder, else random ones.
        image_size (int or tuple, optional): Height and width of the frames,
            pixels, multiples of the patch size. Weights of another size need
            ``resize_positions=True``. Defaults to the architecture's.
        shift_layers (Sequence[int]): Blocks with the patch shift, counted
            from 0, or from the end if negative; ``()`` for none. Defaults to
            ``(10, 11)``, the last two of ViT-B.
        output_patches (bool): Whether features of all patches, normalised
            and projected as the class token, are returned as well. Defaults
            to False.
        **kwargs: Freezing, checkpointing, precision, resizing of positions
            and LoRA, see :class:`CLIPEncoder`.

    Raises:
        ValueError: See :class:`CLIPEncoder`; also if a shift layer does not
            exist or there are fewer than 7 tokens to shift.

    Example:
        >>> encoder = CLIPVideoEncoder('ViT-B-32-quickgelu')
        >>> encoder(torch.zeros(2, 12, 3, 224, 224)).frames.shape
        torch.Size([2, 12, 512])
    """

    tower: VisionTransformer
    side = 'vision'
    frozen_parts = (
        'conv1',
        'class_embedding',
        'positional_embedding',
        'ln_pre',
    )

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
                Defaults to all True.

        Returns:
            VideoFeatures: ``frames`` of shape ``(Bv, F, D)``, not
            normalised, in float32 (float64 if the encoder is), and the mask;
            with ``output_patches`` also ``patches``, shape
            ``(Bv, F, L - 1, D)``.

        Raises:
            ValueError: If the frames have another shape or size, or the mask
                does not fit them.
        """
        num_videos, num_frames = self._check(pixels, frame_mask)
        if frame_mask is None:
            frame_mask = torch.ones(
                num_videos, num_frames, dtype=torch.bool, device=pixels.device
            )
        tokens = self._embed(pixels.flatten(0, 1))  # (Bv * F, L, C)
        tokens = self._run_blocks(tokens, num_frames)
        if not self.output_patches:
            tokens = tokens[:, :1]
        feats = self.tower.ln_post(tokens) @ self.tower.proj
        feats = self._to_full_precision(feats)
        feats = feats.unflatten(0, (num_videos, num_frames))  # (Bv, F, L, D)
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

    def _check(
        self, pixels: Tensor, frame_mask: Tensor | None
    ) -> tuple[int, int]:
        """Check the input, return the numbers of videos and frames."""
        expected = (3, *self.image_size)
        if pixels.ndim != 5 or tuple(pixels.shape[2:]) != expected:
            raise ValueError(
                f'pixels must have the shape (videos, frames, {expected[0]}, '
                f'{expected[1]}, {expected[2]}), but got '
                f'{tuple(pixels.shape)}. Resize the frames to the image_size '
                'of the encoder.'
            )
        num_videos, num_frames = pixels.shape[:2]
        if frame_mask is not None and frame_mask.shape != pixels.shape[:2]:
            raise ValueError(
                f'frame_mask must have the shape {(num_videos, num_frames)} '
                f'of the frames, but got {tuple(frame_mask.shape)}.'
            )
        return num_videos, num_frames
