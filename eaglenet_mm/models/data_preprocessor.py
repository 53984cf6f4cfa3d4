"""Preprocessor from collated items to encoder inputs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from eaglenet_mm.registry import MODELS

#: Mean and standard deviation of CLIP's training images, in [0, 1] units.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
#: Statistics that differ by less are the same, rounded differently.
STATISTICS_TOLERANCE = 1e-3


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise an error for pixel statistics that are not in [0, 1] units."""
    if (
        len(mean) != 3
        or len(std) != 3
        or not all(0 <= value <= 1 for value in mean)
        or not all(0 < value <= 10 for value in std)
    ):
        raise ValueError(
            'mean and std must be three numbers each, in units of [0, 1] '
            f'and std above 0, but got {list(mean)} and {list(std)}. '
            'Divide values in [0, 255] by 255.'
        )


@MODELS.register_module()
class RetrievalDataPreprocessor(BaseDataPreprocessor):
    """Preprocessor that stacks, pads, masks and normalises a batch.

    Frames move to the device as uint8 and become float there. As in the
    release, videos with fewer than ``num_frames`` frames are padded with
    zeros **after** normalisation.

    Args:
        mean (Sequence[float], optional): Mean of red, green and blue, in
            [0, 1] units. Default: that of the video encoder, see
            :meth:`follow`, or CLIP's.
        std (Sequence[float], optional): Divisor of red, green and blue, in
            [0, 1] units, usually their standard deviation. Default: like
            ``mean``.
        num_frames (int): Frames ``F`` per video after padding, the head's
            ``num_frames``.
        non_blocking (bool): Copy to the device asynchronously; needs pinned
            memory. Default: False.

    Raises:
        ValueError: If ``mean`` or ``std`` are not three numbers in range, or
            ``num_frames`` is not positive.

    Example:
        >>> preprocessor = RetrievalDataPreprocessor(num_frames=12)
        >>> frames = torch.zeros(10, 3, 224, 224, dtype=torch.uint8)
        >>> batch = preprocessor(dict(inputs=dict(frames=[frames])))
        >>> batch['inputs']['pixels'].shape
        torch.Size([1, 12, 3, 224, 224])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        num_frames: int,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        #: Statistics set in the config; None means those of the encoder.
        self.given = {'mean': mean, 'std': std}
        mean = CLIP_MEAN if mean is None else mean
        std = CLIP_STD if std is None else std
        check_statistics(mean, std)
        if num_frames < 1:
            raise ValueError(
                f'num_frames must be at least 1, but got {num_frames}. Set '
                'data_preprocessor.num_frames to num_frames of the head.'
            )
        self.num_frames = num_frames
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), False)

    def follow(self, encoder: object) -> None:
        """Adopt the pixel statistics of a video encoder.

        Args:
            encoder (object): Encoder, with or without ``mean`` and ``std``.

        Raises:
            ValueError: If they contradict the config of the preprocessor.
        """
        for name, given in self.given.items():
            stated = getattr(encoder, name, None)
            if stated is None:
                continue
            if given is None:
                buffer = getattr(self, name)
                buffer.copy_(torch.tensor(stated).view(3, 1, 1))
            elif not all(
                math.isclose(a, b, rel_tol=0, abs_tol=STATISTICS_TOLERANCE)
                for a, b in zip(given, stated, strict=True)
            ):
                raise ValueError(
                    f'data_preprocessor has {name}={_rounded(given)}, but '
                    f'video_encoder ({type(encoder).__name__}) was trained '
                    f'on pixels of {name}={_rounded(stated)}. Leave {name} '
                    'out of the preprocessor, to use that of the encoder, or '
                    f'set {name} of the encoder too.'
                )

    @torch.compiler.disable  # lists of varying length
    def forward(
        self, data: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Prepare a batch.

        Args:
            data (dict): Batch of ``pseudo_collate``: ``inputs``, a dict of
                ``frames`` (``B`` tensors, uint8, shape ``(n, 3, H, W)``,
                ``1 <= n <= num_frames``), ``token_ids`` (``B`` tensors,
                int64, shape ``(C_i, L)``) or both; and optionally a list of
                ``data_samples``.
            training (bool): Reject videos without captions, which evaluation
                sets may contain. Default: False.

        Returns:
            dict: ``data_samples``, and ``inputs``, a dict of ``pixels``
            (float32, shape ``(B, F, 3, H, W)``), ``frame_mask`` (bool, True =
            real, shape ``(B, F)``), ``token_ids`` (int64, concatenated, shape
            ``(sum C_i, L)``) and ``caption_counts`` (``C_i``, int64, shape
            ``(B,)``).

        Raises:
            KeyError: If there are neither frames nor token ids.
            TypeError: If frames are not uint8 or token ids not int64.
            ValueError: If shapes do not fit each other or ``num_frames``.
        """
        inputs = data['inputs']
        batch: dict[str, Tensor] = {}
        if 'frames' in inputs:
            self._check_frames(inputs['frames'])
            frames = self.cast_data(inputs['frames'])
            batch['pixels'], batch['frame_mask'] = self._pad(frames)
        if 'token_ids' in inputs:
            _check_token_ids(
                inputs['token_ids'], data.get('data_samples'), training
            )
            token_ids = self.cast_data(inputs['token_ids'])
            batch['token_ids'] = torch.cat(token_ids)  # (T, L)
            batch['caption_counts'] = torch.tensor(
                [len(ids) for ids in token_ids], device=self.device
            )
        if not batch:
            raise KeyError(
                "The preprocessor expects 'frames' or 'token_ids' in the "
                f'inputs, but got {sorted(inputs)}. End the pipeline with '
                'PackRetrievalInputs.'
            )
        return dict(
            inputs=batch,
            data_samples=self.cast_data(data.get('data_samples')),
        )

    def _pad(self, frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalise frames and pad them to ``num_frames`` with zeros."""
        counts = torch.tensor([len(video) for video in frames])
        places = torch.arange(self.num_frames)
        mask = (places < counts[:, None]).to(self.device)  # (B, F)
        real = torch.cat(list(frames)).to(torch.float32)  # (sum n, 3, H, W)
        real = real.div_(255).sub_(self.mean).div_(self.std)
        pixels = real.new_zeros(*mask.shape, *real.shape[1:])
        pixels[mask] = real  # a mask selects in the order of the cat
        return pixels, mask

    def _check_frames(self, frames: Sequence[Tensor]) -> None:
        """Check type, shape, number and size of frames."""
        for item, video in enumerate(frames):
            if video.dtype != torch.uint8:
                raise TypeError(
                    f'Frames must be uint8 in [0, 255], but item {item} is '
                    f'{video.dtype}. Leave normalisation to the preprocessor.'
                )
            if video.ndim != 4 or video.shape[1] != 3 or len(video) == 0:
                raise ValueError(
                    'Frames must have the shape (n, 3, H, W) with n at least '
                    f'1, but item {item} has {tuple(video.shape)}. End the '
                    'pipeline with PackRetrievalInputs.'
                )
            if len(video) > self.num_frames:
                raise ValueError(
                    f'Expected at most {self.num_frames} frames per video '
                    '(model.data_preprocessor.num_frames), but item '
                    f'{item} has {len(video)}. Set the same num_frames in '
                    'SampleFrames of the pipeline, the preprocessor and the '
                    'head (model.head.num_frames).'
                )
        sizes = sorted({tuple(video.shape[2:]) for video in frames})
        if len(sizes) > 1:
            raise ValueError(
                'Frames of a batch must have the same size, but got '
                f'{sizes[:5]}. Add ResizeCenterCrop to the pipeline.'
            )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _check_token_ids(
    token_ids: Sequence[Tensor], samples: Any, training: bool
) -> None:
    """Check that token ids can be concatenated."""
    for item, ids in enumerate(token_ids):
        if ids.dtype != torch.int64:
            raise TypeError(
                f'Token ids must be int64, but item {item} is {ids.dtype}. '
                'Let the tokenizer return torch.int64.'
            )
        # a distractor video states that it has no captions
        bare = (
            samples is not None and samples[item].get('caption_indices') == []
        )
        if bare and training:
            raise ValueError(
                f"Video '{samples[item].get('video_id')}' has no caption, so "
                'it cannot be used for training. Wrap the training set in '
                'CaptionExpansion, which skips it, or remove it from the '
                'annotation file.'
            )
        if ids.ndim != 2 or (len(ids) == 0 and not bare):
            raise ValueError(
                'Token ids must have the shape (C, L) with C at least 1, but '
                f'item {item} has {tuple(ids.shape)}. Use TokenizeCaptions.'
            )
    lengths = sorted({ids.shape[1] for ids in token_ids})
    if len(lengths) > 1:
        raise ValueError(
            'Token ids of a batch must have the same length, but got '
            f'{lengths[:5]}. Set the same max_words of TokenizeCaptions in '
            'all datasets.'
        )
