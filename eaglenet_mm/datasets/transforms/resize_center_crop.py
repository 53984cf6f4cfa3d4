"""Resize and centre crop, bit-identical to the release."""

from fractions import Fraction
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from eaglenet_mm.registry import TRANSFORMS


def resize_center_crop(
    frame: np.ndarray, size: int, pixel_aspect: Fraction | int = 1
) -> np.ndarray:
    """Resize the short side to ``size`` and crop the centre.

    Pillow's bicubic filter is antialiased, unlike the plain bicubic of OpenCV
    and PyTorch. The long side becomes ``int(size * long / short)``; the crop
    starts at ``round(rest / 2)``, with halves rounded to even.

    Args:
        frame (np.ndarray): RGB, uint8, shape ``(h, w, 3)``.
        size (int): Side of the result in pixels.
        pixel_aspect (Fraction | int): Pixel width over pixel height; the
            result has square pixels. Default: 1.

    Returns:
        np.ndarray: RGB, uint8, shape ``(size, size, 3)``.
    """
    height, width = frame.shape[:2]
    shown = width * pixel_aspect
    short = min(height, shown)
    wide = size if shown == short else int(size * shown / short)
    high = size if height == short else int(size * height / short)
    top, left = round((high - size) / 2), round((wide - size) / 2)
    if pixel_aspect != 1:
        # resize the crop alone: extreme pixel aspects give huge full images
        box = (
            left / wide * width,
            top / high * height,
            min((left + size) / wide, 1) * width,
            min((top + size) / high, 1) * height,
        )
        return np.asarray(
            Image.fromarray(frame).resize(
                (size, size), Image.Resampling.BICUBIC, box
            )
        )
    if short != size:
        image = Image.fromarray(frame)
        frame = np.asarray(
            image.resize((wide, high), Image.Resampling.BICUBIC)
        )
    return frame[top : top + size, left : left + size]


@TRANSFORMS.register_module()
class ResizeCenterCrop(BaseTransform):
    """Resize the short side with Pillow's bicubic filter and crop the centre.

    Reads and writes ``frames``, RGB, uint8: shape ``(n, h, w, 3)`` becomes
    ``(n, size, size, 3)``. The release treats all pixels as square, which
    distorts some videos, of MSR-VTT too.

    Args:
        size (int): Side of the result in pixels, the ``image_size`` of the
            video encoder.
        square_pixels (bool): Whether to correct for ``pixel_aspect``
            (Fraction, pixel width over pixel height) of the results. Default:
            False, as in the release.

    Raises:
        ValueError: If ``size`` is not positive.

    Example:
        >>> item = dict(frames=np.zeros((4, 48, 64, 3), np.uint8))
        >>> ResizeCenterCrop(32)(item)['frames'].shape
        (4, 32, 32, 3)
    """

    def __init__(self, size: int, *, square_pixels: bool = False) -> None:
        if size < 1:
            raise ValueError(
                f'size must be at least 1 pixel, but got {size}. Set it to '
                'the image_size of the video encoder.'
            )
        self.size = size
        self.square_pixels = square_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize and crop the frames of an item.

        Raises:
            KeyError: If ``pixel_aspect`` is required but missing.
            ValueError: If it is not positive.
        """
        aspect: Fraction | int = 1
        if self.square_pixels:
            if 'pixel_aspect' not in results:
                raise KeyError(
                    'ResizeCenterCrop(square_pixels=True) expects '
                    f"'pixel_aspect', but got {sorted(results)}. Put "
                    'OpenVideo and DecodeFrames before it in the pipeline.'
                )
            aspect = Fraction(results['pixel_aspect'])
            if aspect <= 0:
                raise ValueError(
                    f"'pixel_aspect' must be positive, but got {aspect}. "
                    'Leave square_pixels of ResizeCenterCrop out.'
                )
        frames = [
            resize_center_crop(np.ascontiguousarray(frame), self.size, aspect)
            for frame in results['frames']
        ]
        results['frames'] = np.stack(frames)
        return results

    def __repr__(self) -> str:
        squares = ', square_pixels=True' if self.square_pixels else ''
        return f'{type(self).__name__}(size={self.size}{squares})'
