"""Rescoring options of the metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eaglenet_mm.evaluation.functional import (
    dual_softmax,
    query_bank_normalisation,
)

_DEFAULTS: dict[str, dict[str, Any]] = {
    'dsl': {'temperature': 100.0},
    'querybank': {'beta': 20.0, 'dynamic': True, 'bank_file': None},
}


class PostProcessing:
    """Rescoring method; see ``post_process`` of RetrievalRankMetric."""

    def __init__(self, type: str, **options: Any) -> None:  # noqa: A002
        if type not in _DEFAULTS:
            raise ValueError(
                f'post_process type must be one of {sorted(_DEFAULTS)}, but '
                f"got '{type}'."
            )
        unknown = sorted(set(options) - set(_DEFAULTS[type]))
        if unknown:
            raise ValueError(
                f"post_process '{type}' has the options "
                f'{sorted(_DEFAULTS[type])}, but got {unknown}.'
            )
        self.name = type
        self.options = {**_DEFAULTS[type], **options}
        self.is_one_way = self.options.get('bank_file') is not None

    def __str__(self) -> str:
        settings = ', '.join(
            f'{key}={value}' for key, value in self.options.items()
        )
        return f'{self.name}({settings})'

    def __call__(
        self, scores: Tensor, columns: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rescore ``(Bt, Bv)`` for text-to-video and for video-to-text.

        ``columns`` selects the videos of a part from a bank of all videos.
        """
        if self.name == 'dsl':
            temperature = self.options['temperature']
            return (
                dual_softmax(scores, temperature=temperature),
                dual_softmax(scores.t(), temperature=temperature).t(),
            )
        options = {key: self.options[key] for key in ('beta', 'dynamic')}
        if self.is_one_way:
            bank = _load_bank(self.options['bank_file'])
            if columns is not None:
                bank = bank[:, columns]
            return query_bank_normalisation(scores, bank, **options), None
        by_video = scores.t()
        return (
            query_bank_normalisation(scores, scores, **options),
            query_bank_normalisation(by_video, by_video, **options).t(),
        )


def _load_bank(path: str) -> Tensor:
    """Load the scores of a query bank."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"post_process 'querybank': bank_file '{path}' does not exist. "
            'Give a .npy file of scores (bank texts, videos), or leave '
            'bank_file out to use the evaluated queries.'
        )
    return torch.from_numpy(np.load(path, allow_pickle=False))
