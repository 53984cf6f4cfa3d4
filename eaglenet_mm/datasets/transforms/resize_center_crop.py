"""Resize and crop as the release does, to the grey level."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from eaglenet_mm.registry import TRANSFORMS


def resize_center_crop(frame: np.ndarray, size: int) -> np.ndarray:
    """Bring the short side to ``size`` and cut out the middle.

    Pillow's bicubic filter widens with the reduction (antialiasing), which
    OpenCV's and PyTorch's plain bicubic do not. The long side becomes
    ``int(size * long / short)``, the crop begins at ``round(rest / 2)`` with
    halves to even.

    Args:
        frame (np.ndarray): RGB, uint8, shape ``(h, w, 3)``.
        size (int): Side of the result in pixels.

    Returns:
        np.ndarray: RGB, uint8, shape ``(size, size, 3)``.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    if short != size:
        width = size if width == short else int(size * width / short)
        height = (
            size if frame.shape[0] == short else int(size * height / short)
        )
        image = Image.fromarray(frame)
        frame = np.asarray(
            image.resize((width, height), Image.Resampling.BICUBIC)
        )
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frame[top : top + size, left : left + size]


@TRANSFORMS.register_module()
class ResizeCenterCrop(BaseTransform):
    """Resize the short side by Pillow's bicubic filter and cut the middle.

    Takes and gives ``frames``, RGB, uint8: shape ``(n, h, w, 3)`` becomes
    ``(n, size, size, 3)``.

    Args:
        size (int): Side of the result in pixels, the ``image_size`` of the
            video encoder.

    Raises:
        ValueError: If ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(
                f'size must be at least 1 pixel, but got {size}. Set it to '
                'the image_size of the video encoder.'
            )
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize and crop the frames of an item.

        Args:
            results (dict): With ``frames``.

        Returns:
            dict: With ``frames`` of the wanted size.
        """
        results['frames'] = np.stack(
            [
                resize_center_crop(np.ascontiguousarray(frame), self.size)
                for frame in results['frames']
            ]
        )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
