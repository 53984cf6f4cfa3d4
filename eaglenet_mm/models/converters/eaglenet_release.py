"""Parameter names of the EagleNet release, turned into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some

from .eaglenet_release_names import ReleaseOptions, rename
from .release_methods import describe, recognise

LOSSES = ('sig', 'clip')


@dataclass
class ConversionReport:
    """What a conversion did.

    Args:
        options (ReleaseOptions): What the checkpoint says of its model.
        converted (dict[str, str]): Our name of each release name taken over.
        dropped (dict[str, str]): The reason for each release name left out.
    """

    options: ReleaseOptions
    converted: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def convert_eaglenet_release(
    state_dict: Mapping[str, Tensor],
    *,
    num_graph_layers: int | None = None,
    loss: str | None = None,
    max_words: int | None = None,
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Rename the parameters of a checkpoint of the EagleNet release.

    Leaves out what the release stores and never uses, and says why. Weights
    in half precision become float32. The fill count of the replay buffer,
    which the release does not store, is the number of its entries that are
    not zero.

    Args:
        state_dict (dict[str, Tensor]): The release's parameters and buffers,
            with or without ``'module.'`` before every name.
        num_graph_layers (int, optional): Layers of the graph. The release
            builds two layers for 1, so a checkpoint with two layers can be
            either. Defaults to the number of layers stored.
        loss (str, optional): ``'sig'`` or ``'clip'``. Without the
            parameters of the sigmoid loss a checkpoint can come from
            ``'clip'`` or from ``'sig'`` with fixed parameters. Defaults to
            ``'sig'`` with these parameters and to ``'clip'`` without.
        max_words (int, optional): Rows kept of the text tower's positional
            table. Defaults to all.

    Returns:
        tuple[dict[str, Tensor], ConversionReport]: Our state dict, contiguous
        copies in float32 on the CPU, and what was done.

    Raises:
        TypeError: If it is no dict, or an entry is no tensor.
        ValueError: If a name is unknown, a part of the model is missing, or
            an argument contradicts the checkpoint.

    Example:
        >>> ours, report = convert_eaglenet_release(release)
        >>> model.load_state_dict(ours, strict=False)
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            'Expected a state dict of tensors, but got a '
            f'{type(state_dict).__name__}. Give the state dict itself.'
        )
    wrong = [k for k, v in state_dict.items() if not isinstance(v, Tensor)]
    if wrong:
        raise TypeError(
            'Expected a state dict of tensors, but these entries are none: '
            f'{name_some(wrong)}. Give the state dict itself.'
        )
    source = dict(state_dict)
    if source and all(name.startswith('module.') for name in source):
        source = {name[len('module.') :]: v for name, v in source.items()}
    options = _infer_options(source, num_graph_layers, loss, max_words)
    report = ConversionReport(options=options)
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, value in source.items():
        action = rename(name, options)
        if action is None:
            unknown.append(name)
        elif action.target is None:
            report.dropped[name] = action.reason
        else:
            value = action.transform(value.detach().cpu())
            if value.is_floating_point():
                value = value.float()
            ours[action.target] = value.clone(
                memory_format=torch.contiguous_format
            )
            report.converted[name] = action.target
    if unknown:
        raise ValueError(
            f'{len(unknown)} names are not those of the EagleNet release: '
            f'{name_some(unknown)}. Is this a checkpoint of another method?'
        )
    if options.replay_size is not None:
        ours['head.loss_energy.sampler.replay_fill'] = _count_replay_fill(ours)
    return ours, report


def _infer_options(
    source: Mapping[str, Tensor],
    num_graph_layers: int | None,
    loss: str | None,
    max_words: int | None,
) -> ReleaseOptions:
    """Read the options of the model off its names and shapes."""
    needed = (
        'clip.visual.proj',
        'clip.text_projection',
        'clip.positional_embedding',
        'stochastic.std_branch.linear_proj.weight',
        'pool_frames.cross_attn.q_proj.weight',
    )
    missing = [name for name in needed if name not in source]
    layers = {
        int(match[1])
        for name in source
        if (match := re.match(r'gnn\.layers\.(\d+)\.', name))
    }
    if not layers:
        missing.append('gnn.layers.0')
    if missing:
        kind = recognise(source)
        guess = '' if kind in (None, 'eaglenet') else describe(kind)
        raise ValueError(
            'This is no complete checkpoint of the EagleNet release: it '
            f'lacks {name_some(missing)} and has {name_some(sorted(source))}.'
            + (f' It is {guess}.' if guess else '')
        )
    stored = max(layers) + 1
    allowed = {stored, 1} if stored == 2 else {stored}
    if num_graph_layers is None:
        num_graph_layers = stored
    elif num_graph_layers not in allowed:
        raise ValueError(
            f'num_graph_layers={num_graph_layers} contradicts the checkpoint, '
            f'which stores {stored} layers. Leave it out, or give one of '
            f'{sorted(allowed)}.'
        )
    has_sigmoid = 'loss_fct.temp_prior' in source
    if loss is None:
        loss = 'sig' if has_sigmoid else 'clip'
    if loss not in LOSSES or (loss == 'clip' and has_sigmoid):
        raise ValueError(
            f"loss must be one of {LOSSES}, and 'clip' only without the "
            f'parameters of the sigmoid loss, but got {loss!r} for a '
            f'checkpoint with{"" if has_sigmoid else "out"} them.'
        )
    radius = source['stochastic.std_branch.linear_proj.weight']
    context = source['clip.positional_embedding'].shape[0]
    if max_words is not None and not 0 < max_words <= context:
        raise ValueError(
            f'max_words must lie in [1, {context}], the rows of the '
            f'positional table, but got {max_words}.'
        )
    replay = source.get('ebm.replay_buffer_vid')
    energy = None if replay is None else 'cossim'
    if 'ebm.energy_net.0.weight' in source:
        energy = 'mlp'
    elif 'ebm.energy_net.weight' in source:
        energy = 'bilinear'
    return ReleaseOptions(
        embed_dim=radius.shape[0],
        num_frames=radius.shape[1],
        max_words=max_words or context,
        graph_type='gat' if 'gnn.layers.0.lin1.weight' in source else 'rgat',
        num_graph_layers=num_graph_layers,
        frame_embedding='frame_pe' in source,
        loss=loss,
        energy=energy,
        replay_size=None if replay is None else replay.shape[0],
    )


def _count_replay_fill(ours: Mapping[str, Tensor]) -> Tensor:
    """Count the replay entries that were ever written, from the front."""
    filled = torch.zeros(
        ours['head.loss_energy.sampler.replay_video'].shape[0],
        dtype=torch.bool,
    )
    for side in ('video', 'text'):
        buffer = ours.get(f'head.loss_energy.sampler.replay_{side}')
        if buffer is not None:
            filled |= buffer.flatten(1).ne(0).any(dim=1)
    places = filled.nonzero()
    count = int(places.max()) + 1 if len(places) else 0
    return torch.tensor(count, dtype=torch.int64)
