"""Packing of an item for the model."""

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from eaglenet_mm.registry import TRANSFORMS
from eaglenet_mm.structures import RetrievalDataSample

#: Keys packed into the data sample.
META_KEYS = (
    'video_id',
    'video',
    'video_index',
    'captions',
    'caption_indices',
    'positives',
    'moments',
    'start',
    'end',
    'frame_indices',
    'frame_times',
    'windows',
    'num_frames_found',
)


@TRANSFORMS.register_module()
class PackRetrievalInputs(BaseTransform):
    """Pack an item for the model.

    Reads ``frames`` (RGB, uint8, shape ``(n, H, W, 3)``) and ``token_ids``
    (int64, shape ``(C, L)``), either of which may be absent. Results other
    than these and the keys of
    :class:`~eaglenet_mm.structures.RetrievalDataSample` are dropped.

    Example:
        >>> item = dict(frames=np.zeros((4, 32, 32, 3), np.uint8))
        >>> PackRetrievalInputs()(item)['inputs']['frames'].shape
        torch.Size([4, 3, 32, 32])
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack an item.

        Returns:
            dict: ``inputs``, a dict of ``frames`` (uint8, shape ``(n, 3, H,
            W)``) and ``token_ids``, and ``data_samples``
            (:obj:`RetrievalDataSample`).

        Raises:
            KeyError: If both are absent.
        """
        inputs: dict[str, torch.Tensor] = {}
        if 'frames' in results:
            frames = np.ascontiguousarray(
                results['frames'].transpose(0, 3, 1, 2)
            )
            inputs['frames'] = torch.from_numpy(frames)
        if 'token_ids' in results:
            inputs['token_ids'] = results['token_ids']
        if not inputs:
            raise KeyError(
                "PackRetrievalInputs expects 'frames' or 'token_ids', but got "
                f'{sorted(results)}. Put DecodeFrames or TokenizeCaptions '
                'before it in the pipeline.'
            )
        metainfo = {
            key: results[key]
            for key in META_KEYS
            if results.get(key) is not None
        }
        return dict(
            inputs=inputs,
            data_samples=RetrievalDataSample(metainfo=metainfo),
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
