"""Text-video retriever with two encoders and a head."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from eaglenet_mm.models.heads.base_pair_head import BasePairHead
from eaglenet_mm.models.retrievers.micro_batches import (
    check_batch_norm,
    encode_in_micro_batches,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)
from eaglenet_mm.utils.downloads import naming_keys
from eaglenet_mm.utils.type_name import type_name


@MODELS.register_module()
class TextVideoRetriever(BaseModel):
    """Model for text-to-video and video-to-text retrieval.

    All pairs of a batch contrast in one loss. ``encoder_micro_batch`` reduces
    the memory of the encoders: they run on parts of the batch and again in
    the backward pass, at the cost of an extra forward pass. Losses and
    gradients stay those of the whole batch, also with
    ``DistributedDataParallel``, autocast and gradient accumulation. Pixels,
    features and head still grow with the batch. Gradient accumulation
    (``optim_wrapper.accumulative_counts``) saves memory too, but does not
    contrast pairs of different batches.

    Args:
        text_encoder (dict): Config of the text encoder.
        video_encoder (dict): Config of the video encoder.
        head (dict): Config of the head, the method.
        data_preprocessor (dict, optional): Config of the preprocessor, whose
            ``mean`` and ``std`` default to those of the video encoder.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.
        encoder_micro_batch (int, optional): Number of videos, and of texts,
            that a process encodes at once in ``mode='loss'``. Batch norm in
            training mode is an error; dropout draws its masks part by part.
            Default: None, the whole batch.

    Raises:
        TypeError: If a part has an option that its class does not have, as
            after an exchange.
        ValueError: If the parts disagree in width, number of frames or pixel
            statistics, an encoder does not provide what the head needs, or
            ``encoder_micro_batch`` is not a positive integer.

    Example:
        >>> arch = dict(embed_dim=32, quick_gelu=True)
        >>> words = dict(
        ...     vocab_size=20, context_length=8, width=16, heads=2, layers=1)
        >>> pixels = dict(
        ...     image_size=12, patch_size=4, width=16, head_width=8, layers=1)
        >>> tower = dict(pretrained=False)  # random weights
        >>> model = TextVideoRetriever(
        ...     dict(
        ...         tower, type='CLIPTextEncoder', max_words=8,
        ...         arch=dict(arch, text_cfg=words)),
        ...     dict(
        ...         tower, type='CLIPVideoEncoder', shift_layers=(),
        ...         arch=dict(arch, vision_cfg=pixels)),
        ...     dict(type='MeanPoolingHead'))
        >>> model.encode_text(torch.ones(3, 8).long()).embeds.shape
        torch.Size([3, 32])
    """

    def __init__(
        self,
        text_encoder: dict,
        video_encoder: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        *,
        encoder_micro_batch: int | None = None,
    ) -> None:
        if encoder_micro_batch is not None and (
            type(encoder_micro_batch) is not int or encoder_micro_batch < 1
        ):
            raise ValueError(
                'encoder_micro_batch must be an integer of at least 1, or '
                f'None for the whole batch, but got {encoder_micro_batch!r}.'
            )
        if isinstance(data_preprocessor, dict):
            # without a default scope, MMEngine would use its own registry
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self._settings = {
            'model.text_encoder': text_encoder,
            'model.video_encoder': video_encoder,
        }
        with naming_keys(self._settings):
            self.text_encoder = _build_part('text_encoder', text_encoder)
            self.video_encoder = _build_part('video_encoder', video_encoder)
        self.head: BasePairHead = _build_part('head', head)
        self.encoder_micro_batch = encoder_micro_batch
        self._check_agreement('embed_dim', 'text_encoder', 'video_encoder')
        self._check_agreement('embed_dim', 'text_encoder', 'head')
        self._check_frames()
        self._check_given('text_encoder', 'tokens')
        self._check_given('video_encoder', 'patches')
        if hasattr(self.data_preprocessor, 'follow'):
            self.data_preprocessor.follow(self.video_encoder)

    def init_weights(self) -> None:
        """Initialise the parts, as MMEngine does."""
        with naming_keys(self._settings):
            super().init_weights()

    def _check_agreement(self, name: str, first: str, second: str) -> None:
        """Raise an error if two parts have different sizes."""
        one = getattr(getattr(self, first), name, None)
        other = getattr(getattr(self, second), name, None)
        if None not in (one, other) and one != other:
            raise ValueError(
                f'{first} has {name}={one}, but {second} has {name}={other}. '
                'Set both to the same value in the config.'
            )

    def _check_frames(self) -> None:
        """Raise an error if the parts disagree about the number of frames.

        A clip encoder may reduce frames to fewer temporal steps: its input
        must match the preprocessor, its output the head.
        """
        taken = getattr(self.video_encoder, 'num_input_frames', None)
        if taken is None:
            self._check_agreement('num_frames', 'data_preprocessor', 'head')
            return
        padded = getattr(self.data_preprocessor, 'num_frames', taken)
        if padded != taken:
            raise ValueError(
                f'data_preprocessor has num_frames={padded}, but '
                f'video_encoder takes num_input_frames={taken}. Set both, '
                'and num_frames of SampleFrames, to the same value.'
            )
        given = self.video_encoder.num_frames
        expected = getattr(self.head, 'num_frames', None) or given
        if given != expected:
            raise ValueError(
                f'video_encoder makes {given} vectors of {taken} frames, but '
                f'head has num_frames={expected}. Set head.num_frames='
                f'{given}, or change num_input_frames of the encoder.'
            )

    def _check_given(self, part: str, what: str) -> None:
        """Raise an error if an encoder lacks an output that the head needs.

        Encoders without the option pass: the head checks their features.
        """
        encoder, option = getattr(self, part), f'output_{what}'
        needed = getattr(self.head, f'needs_{what}', False)
        given = getattr(encoder, option, None)
        if not needed or given is None or given:
            return
        mend = f'model.{part}.{option}=True'
        if option not in inspect.signature(type(encoder)).parameters:
            mend = f'model.{part} to an encoder that has {option}=True'
        raise ValueError(
            f'{type(self.head).__name__} needs {what}, but '
            f'{type(encoder).__name__} returns none: set {mend}, or '
            f'model.head to one that needs no {what}.'
        )

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        """Encode sentences, given int64 ``token_ids`` ``(Bt, L)``."""
        return self.text_encoder(token_ids)

    def encode_video(
        self, pixels: Tensor, frame_mask: Tensor
    ) -> VideoFeatures:
        """Encode videos, given pixels ``(Bv, F, 3, H, W)``, mask ``(Bv, F)``.

        Pixels are normalised and padded with zeros; the mask is True for real
        frames.
        """
        return self.video_encoder(pixels, frame_mask)

    def forward(
        self,
        inputs: dict[str, Tensor],
        data_samples: list[RetrievalDataSample] | None = None,
        mode: str = 'tensor',
    ) -> (
        dict[str, Tensor]
        | tuple[TextFeatures, VideoFeatures]
        | list[RetrievalDataSample]
    ):
        """Run the model on a batch.

        Args:
            inputs (dict): Output of the preprocessor: ``pixels``,
                ``frame_mask``, ``token_ids``, ``caption_counts``.
            data_samples (list[RetrievalDataSample], optional): One per video.
                Their ``video_id`` tells losses which items share a video.
            mode (str): ``'loss'`` returns the losses; ``'tensor'`` text and
                video features; ``'predict'`` the data samples with the
                ``scores`` of their captions against all videos of the batch,
                shape ``(captions, Bv)``.

        Raises:
            ValueError: If the mode is unknown, or an encoder does not support
                micro-batches.
        """
        if mode not in ('loss', 'tensor', 'predict'):
            raise ValueError(
                f"mode must be 'loss', 'tensor' or 'predict', but is {mode!r}."
            )
        if mode == 'loss':
            text, video = self._encode_for_loss(inputs)
            ids = number_videos(data_samples or [])
            if ids is not None:
                ids = ids.to(video.frames.device, non_blocking=True)
                video = replace(video, video_ids=ids)
            return self._compute_loss(text, video)
        text = self.encode_text(inputs['token_ids'])
        video = self.encode_video(inputs['pixels'], inputs['frame_mask'])
        if mode == 'tensor':
            return text, video
        return self._predict(text, video, inputs, data_samples)

    @torch.compiler.disable
    def _compute_loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the losses in eager mode, even if a Runner compiles.

        Heads use keyed random numbers, buffers and custom backward passes,
        which torch.compile cannot trace.
        """
        return self.head.loss(text, video)

    def _encode_for_loss(
        self, inputs: dict[str, Tensor]
    ) -> tuple[TextFeatures, VideoFeatures]:
        """Encode texts and videos, in micro-batches if set."""
        token_ids = inputs['token_ids']
        frames = inputs['pixels'], inputs['frame_mask']
        size = self.encoder_micro_batch
        if size is None:
            return self.encode_text(token_ids), self.encode_video(*frames)
        for name in ('text_encoder', 'video_encoder'):
            check_batch_norm(getattr(self, name), name)
        return (
            encode_in_micro_batches(self.encode_text, (token_ids,), size),
            encode_in_micro_batches(self.encode_video, frames, size),
        )

    @torch.no_grad()
    def _predict(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        inputs: dict[str, Tensor],
        data_samples: list[RetrievalDataSample] | None,
    ) -> list[RetrievalDataSample]:
        scores = self.head.score_chunked(
            self.head.prepare_text(text), self.head.prepare_video(video)
        )
        rows = scores.split(inputs['caption_counts'].tolist())
        samples = data_samples or [RetrievalDataSample() for _ in rows]
        for sample, own in zip(samples, rows, strict=True):
            sample.scores = own
        return samples


def _build_part(name: str, settings: dict) -> Any:
    """Build a part; say what to do with options of the one before."""
    try:
        return MODELS.build(settings)
    except TypeError as err:
        match = re.search(
            r'(\w+)(?:(?:\.__init__)?\(\) got an unexpected keyword argument'
            r"| has no option) '(\w+)'",
            str(err),
        )
        place = match and _find_option(
            f'model.{name}', settings, *match.groups()
        )
        if not match or not place:
            raise
        raise TypeError(
            f'{str(err).rstrip(".")}. Leave out {place}.{match[2]}. If it '
            'belongs to the part that was there before, leave out all of that '
            f'one: --cfg-options {place}._delete_=True {place}.type=... and '
            'what else the new one needs.'
        ) from err


def _find_option(
    place: str, settings: Mapping[str, Any], kind: str, option: str
) -> str:
    """Find the settings of a class that were given an option; '' if none.

    Those of the innermost part with such an option, if none names the class:
    timm builds classes by the names of models.
    """
    below = [
        found
        for key, value in settings.items()
        if isinstance(value, Mapping)
        and (found := _find_option(f'{place}.{key}', value, kind, option))
    ]
    is_own = option in settings and 'type' in settings
    if is_own and (type_name(settings) == kind or not below):
        return place
    return below[0] if below else ''


def number_videos(samples: Sequence[RetrievalDataSample]) -> Tensor | None:
    """Hash videos to int64 numbers ``(Bv,)``, the same in all processes.

    Videos are equal if ``video_id`` and file are, since ids of concatenated
    datasets may clash. In a joint batch of 4096 videos, the probability of a
    hash collision is below ``1e-12``. None without ``video_id``.
    """
    if not samples or not all('video_id' in sample for sample in samples):
        return None
    hashes = [
        blake2b(
            repr((sample.video_id, sample.get('video'))).encode(),
            digest_size=8,
        ).digest()
        for sample in samples
    ]
    return torch.tensor(
        [int.from_bytes(digest, 'big', signed=True) for digest in hashes]
    )
