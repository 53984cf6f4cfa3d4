"""Features of texts and videos in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.durable_file import replace_durably

_FORMAT = 'eaglenet_mm features'
_VERSION = '1'


@dataclass
class FeatureFile:
    """Features of texts and videos, and what they are of.

    Args:
        videos (VideoFeatures, optional): As the encoder returns them, ``Bv``
            rows.
        vectors (Tensor, optional): One vector of unit length a video, that of
            the first stage of a search, shape ``(Bv, C)``.
        frame_times (Tensor, optional): Seconds, NaN where padded, shape
            ``(Bv, F)``.
        texts (TextFeatures, optional): Likewise, ``Bt`` rows.
        about (dict[str, Any]): ``videos`` (for each row ``video_id``,
            ``path``, ``start``, ``end``), ``texts`` (for each row ``text``
            and, for captions, ``video``, the place of its video or None),
            ``unreadable`` (path to reason), ``notes`` (id of a video to what
            is odd about it, such as that it ends early), ``passed_over``
            (files not looked at, by ending) and ``model``.

    Example:
        >>> FeatureFile(videos=video).save('features.safetensors')
        >>> FeatureFile.load('features.safetensors').videos.frames.shape
        torch.Size([4, 8, 32])
    """

    videos: VideoFeatures | None = None
    vectors: Tensor | None = None
    frame_times: Tensor | None = None
    texts: TextFeatures | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        about = {
            'format': _FORMAT,
            'version': _VERSION,
            'about': json.dumps(self.about),
        }
        try:
            with replace_durably(Path(path)) as part:
                save_file(dict(self._tensors()), part, about)
        except (OSError, SafetensorError) as err:
            raise OSError(
                f'{path} could not be written: {err}. Make room, or check '
                'the folder and its permissions.'
            ) from err

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for side, features in (('video', self.videos), ('text', self.texts)):
            if features is None:
                continue
            for name, tensor in vars(features).items():
                if tensor is not None:
                    yield f'{side}.{name}', tensor.cpu().contiguous()
        for name in ('vectors', 'frame_times'):
            tensor = getattr(self, name)
            if tensor is not None:
                yield f'video.{name}', tensor.cpu().contiguous()

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureFile:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is none.
            OSError: If it cannot be read.
            ValueError: If it is damaged, or something else.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'Features were expected at {path}, but there is no file. '
                'Make it with tools/extract_features.py.'
            )
        try:
            with safe_open(path, 'pt') as file:
                about = file.metadata() or {}
                tensors = {
                    name: file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118 - no dict
                }
        except (SafetensorError, OSError, RuntimeError) as err:
            if isinstance(err, OSError) and err.errno is not None:
                raise  # no permission: the file may be whole
            raise _damaged(path, str(err)) from err
        kind = about.get('format'), about.get('version')
        if kind != (_FORMAT, _VERSION):
            raise ValueError(
                f'{path} is no file of features of version {_VERSION}, but '
                f'{kind[0]} of version {kind[1]}. Make it with '
                'tools/extract_features.py.'
            )
        sides: dict[str, dict[str, Tensor]] = {'video': {}, 'text': {}}
        try:
            for name, tensor in tensors.items():
                side, _, rest = name.partition('.')
                sides[side][rest] = tensor
            video, text = sides['video'], sides['text']
            return cls(
                vectors=video.pop('vectors', None),
                frame_times=video.pop('frame_times', None),
                videos=VideoFeatures(**video) if video else None,
                texts=TextFeatures(**text) if text else None,
                about=dict(json.loads(about['about'])),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as err:
            raise _damaged(path, repr(err)) from err

    @classmethod
    def join(cls, parts: list[FeatureFile]) -> FeatureFile:
        """Join the videos of parts; texts are those of the first."""
        filled = [part for part in parts if part.videos is not None]
        joined = cls(texts=parts[0].texts, about=dict(parts[0].about))
        joined.about['videos'] = [
            row for part in parts for row in part.about['videos']
        ]
        for key in ('unreadable', 'notes'):
            joined.about[key] = {
                name: reason
                for part in parts
                # files of before have no notes
                for name, reason in part.about.get(key, {}).items()
            }
        if filled:
            videos, vectors, times = zip(
                *((x.videos, x.vectors, x.frame_times) for x in filled),
                strict=True,
            )
            joined.videos = VideoFeatures.cat(videos)
            joined.vectors = torch.cat(vectors)
            joined.frame_times = torch.cat(times)
        return joined


def _damaged(path: str | os.PathLike, reason: str) -> ValueError:
    return ValueError(
        f'{path} is damaged ({reason}). Make it again with '
        'tools/extract_features.py.'
    )
