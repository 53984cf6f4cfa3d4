"""Reading the golden files of other methods, and loading their weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.models.converters.release_names import (
    head_table,
    reason_unused,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.golden.cases import load, part, tensor


class Case:
    """Arrays of one golden file.

    Args:
        folder (Path): Folder of the golden data.
        name (str): File in its ``baselines``.
        dtype (torch.dtype): Of what is read.
    """

    def __init__(
        self, folder: Path, name: str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.arrays = load(folder / 'baselines', f'{name}.npz')
        self.dtype = dtype
        self.meta = {
            key: value.item()
            for key, value in part(self.arrays, 'meta').items()
        }

    def __getitem__(self, key: str) -> Tensor:
        return tensor(self.arrays[key], self.dtype)

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def leaf(self, key: str) -> Tensor:
        """Read an input that wants a gradient."""
        return self[key].requires_grad_()

    def mask(self, key: str) -> Tensor:
        """Read a mask of 0 and 1."""
        return self[key].bool()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Read all below a prefix."""
        return {
            key: self[f'{prefix}/{key}'] for key in part(self.arrays, prefix)
        }


_DIRECTOR = r'text_proxy\.proxy_decoder\.event_decoder\.'
#: TV-ProxyNet's names and ours; its checkpoints cannot be converted.
TEXT_PROXY = (
    (_DIRECTOR + r'layers\.0\.multihead_attn\.in_proj_', 'layer1.qkv.'),
    (_DIRECTOR + r'layers\.1\.multihead_attn\.in_proj_', 'layer2.qkv.'),
    (_DIRECTOR + r'layers\.0\.multihead_attn\.out_proj', 'layer1.output'),
    (_DIRECTOR + r'layers\.1\.multihead_attn\.out_proj', 'layer2.output'),
    (_DIRECTOR + r'layers\.0\.', 'layer1.'),
    (_DIRECTOR + r'layers\.1\.', 'layer2.'),
    (_DIRECTOR + r'norm\.', 'norm.'),
    (r'text_proxy\.dash_factor', 'theta'),
    (r'text_proxy\.dash_weights\.', 'dash.'),
)


def rename_head(
    method: str, weights: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by our names, and the names that nobody knows."""
    if method == 'text_proxy':
        table = {}
        for name in weights:
            for pattern, ours in TEXT_PROXY:
                if re.match(pattern, name):
                    table[name] = re.sub(f'^{pattern}', ours, name)
                    break
    else:
        table = head_table(method, weights)
    renamed = {table[k]: v for k, v in weights.items() if k in table}
    unknown = [
        name
        for name in weights
        if name not in table and reason_unused(method, name, weights) is None
    ]
    return renamed, unknown


def load_weights(head: nn.Module, method: str, case: Case) -> None:
    """Load the weights that a head has; it must find all of its own."""
    weights = case.below('w')
    renamed, _ = rename_head(method, weights)
    own = dict(head.named_parameters())
    missing = [
        name
        for name in own
        if name not in renamed and not name.startswith('loss_')
    ]
    assert not missing, missing
    with torch.no_grad():
        for name, parameter in own.items():
            if name in renamed:
                parameter.copy_(_cut(renamed[name], parameter))
    scale = getattr(getattr(head, 'loss_match', None), 'log_scale', None)
    if scale is not None:
        scale.data.copy_(case['in/logit_scale'])


def _cut(value: Tensor, like: Tensor) -> Tensor:
    """Leave out positions that no input reaches; refuse other shapes."""
    if value.dim() == 2 and value.shape[1:] == like.shape[1:]:
        value = value[: len(like)]
    assert value.shape == like.shape
    return value


def compare_gradients(
    report: Any,
    head: BasePairHead,
    method: str,
    case: Case,
    prefix: str,
    tolerance: float,
    scale: str | None,
) -> int:
    """Compare the gradients of weights below a prefix; return how many."""
    golden = case.below(f'{prefix}/w')
    golden.pop('clip.logit_scale', None)
    renamed, unknown = rename_head(method, golden)
    assert not unknown
    own = dict(head.named_parameters())
    # some gradients are zero but for rounding: a key's bias moves all logits
    sizes = [float(x.abs().max()) for x in renamed.values()]
    least = 1e-2 * max(sizes, default=0.0)
    for name, expected in renamed.items():
        got = own[name].grad
        assert got is not None, name
        scale_of = max(least, float(expected.abs().max()))
        expected = _cut(expected, got)
        report(f'{prefix}/w/{name}', got, expected, tolerance, scale=scale_of)
    if scale is not None and head.loss_match is not None:
        report(
            f'{prefix}/scale',
            head.loss_match.log_scale.grad,
            case[scale],
            tolerance,
            scale=max(0.1, float(case[scale].abs())),
        )
    return len(renamed)


def sentences(embeds: Tensor) -> TextFeatures:
    """Features of texts of which only the sentence is known."""
    return TextFeatures(embeds.squeeze(1) if embeds.dim() == 3 else embeds)


def videos(frames: Tensor, mask: Tensor | None = None) -> VideoFeatures:
    """Features of videos; without a mask all frames are real."""
    if mask is None:
        mask = frames.new_ones(frames.shape[:2], dtype=torch.bool)
    return VideoFeatures(frames, mask)
