"""Two other ways from a video file to normalised frames.

The first is the way of the authors' release, written anew from its
description: OpenCV with one seek for each second, every frame that was read
through Pillow and torchvision on its own, the chosen ones into a float64
batch. The second is the stock pipeline of mmaction2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from mmaction.registry import MODELS, TRANSFORMS
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch import Tensor
from torchvision import transforms

from eaglenet_mm.models.data_preprocessor import CLIP_MEAN, CLIP_STD


class ReleaseLoading:
    """Read a video as the authors' release does, at one frame a second."""

    def __init__(self, num_frames: int, size: int) -> None:
        self.num_frames = num_frames
        self.size = size
        self._transform = transforms.Compose(
            [
                transforms.Resize(
                    size, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.CenterCrop(size),
                lambda image: image.convert('RGB'),
                transforms.ToTensor(),
                transforms.Normalize(CLIP_MEAN, CLIP_STD),
            ]
        )

    def __call__(self, path: str) -> Tensor:
        """Load a video."""
        frames = self._read(path)
        if len(frames) > self.num_frames:
            places = np.linspace(
                0, len(frames) - 1, num=self.num_frames, dtype=int
            )
            frames = frames[places.tolist()]
        batch = np.zeros((1, self.num_frames, 3, self.size, self.size))
        batch[0, : len(frames)] = frames.numpy()
        return torch.as_tensor(batch).float()

    def _read(self, path: str) -> Tensor:
        """Seek to every second until a frame cannot be read."""
        capture = cv2.VideoCapture(path)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = int(capture.get(cv2.CAP_PROP_FPS))
        images = []
        for second in range(math.ceil(count / rate) + 1):
            capture.set(cv2.CAP_PROP_POS_FRAMES, second * rate)
            found, image = capture.read()
            if not found:
                break
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            images.append(self._transform(Image.fromarray(image)))
        capture.release()
        return torch.stack(images)


class StockLoading:
    """Read a video by mmaction2's transforms and preprocessor."""

    def __init__(self, num_frames: int, size: int) -> None:
        steps: list[dict[str, Any]] = [
            dict(type='DecordInit'),
            dict(
                type='UniformSample',
                clip_len=num_frames,
                num_clips=1,
                test_mode=True,
            ),
            dict(type='DecordDecode'),
            dict(type='Resize', scale=(-1, size)),
            dict(type='CenterCrop', crop_size=size),
            dict(type='FormatShape', input_format='NCHW'),
            dict(type='PackActionInputs'),
        ]
        self._pipeline: Callable = Compose(
            [
                TRANSFORMS.build({**step, '_scope_': 'mmaction'})
                for step in steps
            ]
        )
        self._preprocessor = MODELS.build(
            dict(
                type='ActionDataPreprocessor',
                mean=[255 * value for value in CLIP_MEAN],
                std=[255 * value for value in CLIP_STD],
                format_shape='NCHW',
                _scope_='mmaction',
            )
        )

    def __call__(self, path: str) -> Tensor:
        """Load a video."""
        item = self._pipeline(
            dict(filename=path, start_index=0, modality='RGB', label=0)
        )
        return self._preprocessor(pseudo_collate([item]))['inputs']
