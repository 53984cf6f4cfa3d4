"""Conversion of released checkpoints: checking, renaming, fitting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.models.converters.model_fit import (
    check_encoders,
    check_model_fit,
    fit_tables,
    read_model_options,
)
from eaglenet_mm.models.converters.release_names import (
    BLOCK,
    CROSS,
    CROSS_POSITIONS,
    EAGLENET,
    LOG_SCALE,
    METHODS,
    NUM_BLOCKS,
    POSITIONS,
    TEMPORAL,
    ReleaseOptions,
    clip_table,
    count_blocks,
    describe,
    eaglenet_table,
    has_lstm,
    head_table,
    reason_unused,
    recognise,
)
from eaglenet_mm.models.converters.release_source import (
    ReleaseSource,
    read_source,
)
from eaglenet_mm.utils.name_lists import name_some

TEXT_TABLE = 'text_encoder.tower.positional_embedding'
RADIUS = 'stochastic.std_branch.linear_proj.weight'
REPLAY = 'head.loss_energy.sampler.replay_'
LOSSES = ('sig', 'clip')
MMACTION2_MEAN = (
    'mmaction2 averages frames without normalisation, MeanPoolingHead '
    'L2-normalised frames, as CLIP4Clip does: scores differ slightly from '
    'those of mmaction2 if the norms of frames differ'
)


@dataclass
class ConversionReport:
    """Record of a conversion.

    Args:
        method (str): ``'eaglenet'`` or a key of ``METHODS``.
        options (ReleaseOptions, optional): Model options inferred from an
            EagleNet checkpoint. Default: None.
        converted (dict[str, str]): Our name for each converted name.
        dropped (dict[str, str]): Reason for each name left out.
        filled (dict[str, str]): Source of each parameter that the file does
            not have.
        kept (list[str]): Buffers that keep the model's values.
        notes (list[str]): Remarks for the user.

    Example:
        >>> ConversionReport('wti', dropped={'clip.size': 'a size'}).lines()
        ['dropped clip.size: a size']
    """

    method: str
    options: ReleaseOptions | None = None
    converted: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Format the report, one line per parameter and note."""
        return [
            *(f'converted {k} -> {v}' for k, v in self.converted.items()),
            *(f'dropped {k}: {v}' for k, v in self.dropped.items()),
            *(f'added {k}: {v}' for k, v in self.filled.items()),
            *(f'kept from the model: {k}' for k in self.kept),
            *(f'note: {text}' for text in self.notes),
        ]


def convert_baseline_release(
    checkpoint: Mapping[str, Any],
    method: str,
    *,
    model: nn.Module | None = None,
    initialise_from_clip: bool = False,
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Convert a released checkpoint of a baseline.

    Supports X-Pool and T-MASS (CLIP named as by Hugging Face or OpenAI),
    CLIP4Clip, TS2-Net and DRL (OpenAI's names, partly in half precision), and
    mmaction2's mean-pooling CLIP4Clip as ``'clip4clip_mean'``. Half precision
    becomes float32.

    Args:
        checkpoint (dict): State dict, plain or under ``'state_dict'``.
        method (str): A key of ``METHODS``.
        model (nn.Module, optional): Retriever to check names and shapes
            against, and to cut position embeddings for; it is not changed.
            Default: None, no check.
        initialise_from_clip (bool): Initialise missing position embeddings
            and blocks from CLIP's text tower, as the releases do before
            training, and a missing head from the model. Default: False.

    Returns:
        tuple[dict[str, Tensor], ConversionReport]: State dict of contiguous
        float32 copies on the CPU, and a report.

    Raises:
        TypeError: If ``checkpoint`` is not a dict of tensors.
        ValueError: If the checkpoint is of another method, names are unknown
            or missing, or it does not fit the model.

    Example:
        >>> release = read_release_file('pytorch_model.bin')
        >>> ours, report = convert_baseline_release(release, 'x_pool')
        >>> write_converted('ours.pth', ours, dict(method='x_pool'))
    """
    if method not in METHODS:
        raise ValueError(
            f'method must be one of {sorted(METHODS)}, but got {method!r}.'
        )
    source = read_source(checkpoint)
    is_clip = recognise(source.tensors) == 'clip4clip_mean'
    is_fresh = initialise_from_clip and is_clip
    _check_method(source, method, model, is_fresh)
    copies = {}
    if initialise_from_clip:
        copies = _fill_from_clip(source, method, model)
    report = ConversionReport(method)
    table = head_table(method, source.tensors)
    ours = _rename(source, table, {}, report, may_lack_head=is_fresh)
    for name, origin in copies.items():
        report.filled[report.converted.pop(name)] = f'copied from {origin}'
    if method == 'clip4clip_tight':
        ours[LOG_SCALE] = torch.zeros(())
        report.filled[LOG_SCALE] = 'scale 1, as tightTransf has none'
    if is_clip and method == 'clip4clip_mean' and 'meta' in checkpoint:
        report.notes.append(MMACTION2_MEAN)
    if model is not None:
        shifted = None if is_fresh else source.shifted
        report.notes += check_encoders(model, shifted)
        _fit(ours, model, report, fill_head=is_fresh)
    return ours, report


def convert_eaglenet_release(
    state_dict: Mapping[str, Any],
    *,
    num_graph_layers: int | None = None,
    loss: str | None = None,
    max_words: int | None = None,
    model: nn.Module | None = None,
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Convert a checkpoint of the EagleNet release.

    Drops parameters that the release stores but never uses; the report says
    why. Half precision becomes float32. The fill count of the replay buffer,
    which the release does not store, is the number of nonzero entries.

    Args:
        state_dict (dict): Parameters and buffers of the release, plain or
            under ``'state_dict'``, with or without the prefix ``'module.'``.
        num_graph_layers (int, optional): Layers of the graph. The release
            stores two layers for both 1 and 2. Default: that of the model,
            else the number of layers stored.
        loss (str, optional): ``'sig'`` or ``'clip'``. A checkpoint without
            parameters of the sigmoid loss comes from ``'clip'``, or from
            ``'sig'`` with fixed parameters. Default: that of the model, else
            ``'sig'`` if it has these parameters.
        max_words (int, optional): Text position embeddings to keep. Default:
            those of the model, else all.
        model (nn.Module, optional): Retriever to check names and shapes
            against; it is not changed. Default: None, no check.

    Returns:
        tuple[dict[str, Tensor], ConversionReport]: State dict of contiguous
        float32 copies on the CPU, and a report.

    Raises:
        TypeError: If ``state_dict`` is not a dict of tensors.
        ValueError: If names are unknown or missing, an argument contradicts
            the checkpoint, or it does not fit the model.

    Example:
        >>> ours, report = convert_eaglenet_release(release)
        >>> model.load_state_dict(ours, strict=False)
    """
    source = read_source(state_dict)
    _check_method(source, 'eaglenet', model, False)
    if model is not None:
        stated = read_model_options(model)
        num_graph_layers = num_graph_layers or stated['num_graph_layers']
        loss = loss or stated['loss']
        table = source.tensors.get('clip.positional_embedding', ())
        max_words = max_words or min(stated['max_words'], len(table)) or None
    options = _infer_options(source.tensors, num_graph_layers, loss, max_words)
    report = ConversionReport('eaglenet', options)
    used, unused = eaglenet_table(options, source.tensors)
    ours = _rename(source, used, unused, report)
    ours[TEXT_TABLE] = ours[TEXT_TABLE][: options.max_words].clone()
    for name, value in ours.items():
        if re.fullmatch(r'head\.graph\..*\.(left|right)', name):
            ours[name] = value.squeeze(0)
    if options.replay_size is not None:
        ours[f'{REPLAY}fill'] = _count_replay_fill(ours)
    if model is not None:
        report.notes += check_encoders(model, source.shifted)
        _fit(ours, model, report)
    return ours, report


# -- checks -----------------------------------------------------------------


def _check_method(
    source: ReleaseSource, method: str, model: nn.Module | None, is_fresh: bool
) -> None:
    """Raise an error if checkpoint or model is of another method."""
    wanted = METHODS.get(method, EAGLENET)
    head = getattr(model, 'head', None)
    if model is not None and wanted.head not in {
        kind.__name__ for kind in type(head).__mro__
    }:
        raise ValueError(
            f'{method} gives the weights of {wanted.head}, but the head of '
            f'the config is {type(head).__name__}. Use a config of '
            f'{wanted.head}, or the method of the config.'
        )
    names = source.tensors
    kind = recognise(names)
    if kind is None:
        raise ValueError(
            f'This is not a checkpoint of {wanted.title} or of any other '
            'supported method; its names are '
            f'{name_some(sorted([*names, *source.unknown]))}. Use the weight '
            'file that the release saved.'
        )
    # DRL without token weights has the names of CLIP4Clip
    is_plain_drl = (
        method == 'wti'
        and kind.startswith('clip4clip_')
        and kind != 'clip4clip_tight'
        and head is not None
        and getattr(head, 'text_weight', None) is None
    )
    if kind != method and not is_fresh and not is_plain_drl:
        message = f'This is not {wanted.title} but {describe(kind)}'
        if kind == 'clip4clip_mean' and method in METHODS:
            lacking = list(head_table(method, names))
            message += (
                f'. It lacks {name_some(lacking) or "the token weights"}; add '
                f'--initialise-from-clip to start a training of '
                f'{wanted.title} from it'
            )
        raise ValueError(f'{message}.')
    if (
        is_fresh
        and model is None
        and method not in ('clip4clip_mean', 'clip4clip_transformer')
    ):
        raise ValueError(
            f'The checkpoint is of CLIP only, and the head of {wanted.title} '
            'has parameters that cannot be initialised from it. Give '
            '--config, to initialise them from its model.'
        )


def _infer_options(
    source: Mapping[str, Tensor],
    num_graph_layers: int | None,
    loss: str | None,
    max_words: int | None,
) -> ReleaseOptions:
    """Infer EagleNet's options from names and shapes."""
    pattern = r'gnn\.layers\.(\d+)\.'
    places = [int(m[1]) for name in source if (m := re.match(pattern, name))]
    stored = max(places, default=1) + 1
    allowed = {stored, 1} if stored == 2 else {stored}
    if num_graph_layers is None:
        num_graph_layers = stored
    elif num_graph_layers not in allowed:
        raise ValueError(
            f'num_graph_layers={num_graph_layers} contradicts the checkpoint, '
            f'which stores {stored} layers. Omit it, or use one of '
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
    # missing names are reported later
    context = len(source.get('clip.positional_embedding', ()))
    if context and max_words is not None and not 0 < max_words <= context:
        raise ValueError(
            f'max_words must be in [1, {context}], the number of position '
            f'embeddings, but got {max_words}.'
        )
    radius = source.get(RADIUS, torch.empty(0, 0))
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
        replay_size=None if replay is None else len(replay),
    )


def _rename(
    source: ReleaseSource,
    head: Mapping[str, str],
    unused: Mapping[str, str],
    report: ConversionReport,
    *,
    may_lack_head: bool = False,
) -> dict[str, Tensor]:
    """Rename all parameters; raise an error if any is unknown or missing.

    ``head`` holds our names, without ``head.``; ``unused`` the reasons for
    dropping parameters.
    """
    in_clip = clip_table(source.tensors)
    table = {**in_clip, **{k: f'head.{v}' for k, v in head.items()}}
    reasons: dict[str, str] = {}
    for name in {**source.tensors, **table, **dict.fromkeys(source.unknown)}:
        reason = unused.get(name) or reason_unused(
            report.method, name, source.tensors
        )
        if reason is not None:
            reasons[name] = reason
            if name in source.tensors or name in source.unknown:
                report.dropped[source.origins.get(name, [name])[0]] = reason
    given = {k: v for k, v in source.tensors.items() if k not in reasons}
    unknown = [source.origins[name][0] for name in given if name not in table]
    unknown += [name for name in source.unknown if name not in reasons]
    needed = in_clip if may_lack_head else table
    missing = [k for k in needed if k not in given and k not in reasons]
    if unknown or missing:
        _raise_name_error(report.method, unknown, missing)
    ours = {}
    for name, value in given.items():
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()
        ours[table[name]] = value.clone(memory_format=torch.contiguous_format)
        for origin in source.origins[name]:
            report.converted[origin] = table[name]
    return ours


def _raise_name_error(
    method: str, unknown: list[str], missing: list[str]
) -> None:
    """Raise an error that lists unknown and missing names."""
    lines = [
        f'{len(names)} names {kind}: {name_some(names)}'
        for kind, names in (('unknown', unknown), ('missing', missing))
        if names
    ]
    mend = 'Is the file complete and of this method?'
    if any(name.startswith('clip.visual.conv2.') for name in unknown):
        mend = (
            "CLIP4Clip's 3-d patches (--linear_patch 3d) are not supported; "
            'only checkpoints with 2-d patches can be converted.'
        )
    elif method in METHODS and any(
        'position_embeddings' in n or 'resblocks' in n for n in missing
    ):
        mend = (
            'Position embeddings and blocks that are missing entirely can be '
            "initialised from CLIP's text tower, as in the releases: add "
            '--initialise-from-clip.'
        )
    raise ValueError(
        f'The checkpoint does not have the parameters of '
        f'{METHODS.get(method, EAGLENET).title}; {"; ".join(lines)}. {mend}'
    )


# -- missing parameters -----------------------------------------------------


def _fill_from_clip(
    source: ReleaseSource, method: str, model: nn.Module | None
) -> dict[str, str]:
    """Initialise missing positions and blocks from CLIP's text tower.

    The releases copy from OpenAI's weights; this copies from the text tower
    of the checkpoint, which for CLIP's own checkpoint is the same. Parts that
    are only partly missing are left alone. Returns the source of each copy.
    """
    tensors = source.tensors
    blocks, places = TEMPORAL, POSITIONS
    if method == 'clip4clip_tight':
        blocks, places = CROSS, CROSS_POSITIONS
    # an LSTM replaces the transformer
    count = 0 if has_lstm(tensors) else _num_clip_blocks(method, model)
    copies = {}
    if count and places not in tensors:
        copies[places] = 'clip.positional_embedding'
    if count and not count_blocks(blocks, tensors):
        stored = count_blocks('clip.transformer', tensors)
        if stored < count:
            raise ValueError(
                f"{count} blocks cannot be initialised from CLIP's text "
                f'tower, which has {stored}. Use fewer layers in the config.'
            )
        copies |= {
            f'{blocks}.resblocks.{place}.{part}': (
                f'clip.transformer.resblocks.{place}.{part}'
            )
            for place in range(count)
            for part in BLOCK
        }
    copies = {k: v for k, v in copies.items() if v in tensors}
    projection = tensors.get('clip.text_projection')
    if copies and projection is not None:
        width, features = projection.shape
        if width != features:
            raise ValueError(
                f"CLIP's text tower is {width} wide and its features "
                f'{features}, so its positions and blocks do not fit a head '
                'on the features. Train the head from random weights instead.'
            )
    for name, origin in copies.items():
        source.add(name, tensors[origin], name)
    return copies


def _num_clip_blocks(method: str, model: nn.Module | None) -> int:
    """Number of blocks of the head that can be initialised from CLIP."""
    prefix = 'head.temporal.blocks.'
    if method == 'clip4clip_tight':
        prefix = 'head.blocks.'
    elif method not in ('clip4clip_transformer', 'ts2_net', 'wti'):
        return 0
    if model is None:
        return NUM_BLOCKS
    names = (n for n in model.state_dict() if n.startswith(prefix))
    return len({name[len(prefix) :].split('.')[0] for name in names})


def _count_replay_fill(ours: Mapping[str, Tensor]) -> Tensor:
    """Count the filled entries at the front of the replay buffer."""
    filled = torch.stack(
        [
            ours[f'{REPLAY}{side}'].flatten(1).ne(0).any(dim=1)
            for side in ('video', 'text')
            if f'{REPLAY}{side}' in ours
        ]
    ).any(dim=0)
    places = filled.nonzero()
    return torch.tensor(int(places.max()) + 1 if len(places) else 0)


def _fit(
    ours: dict[str, Tensor],
    model: nn.Module,
    report: ConversionReport,
    fill_head: bool = False,
) -> None:
    """Resize tables to a model, add what only it has, and check the fit."""
    expected = model.state_dict()
    report.notes += fit_tables(ours, model)
    if LOG_SCALE in ours and LOG_SCALE not in expected:
        del ours[LOG_SCALE]
        report.filled.pop(LOG_SCALE, None)
        for name, target in list(report.converted.items()):
            if target == LOG_SCALE:
                del report.converted[name]
                report.dropped[name] = 'the head of the config has no loss'
    elif LOG_SCALE in ours:
        scale = expected[LOG_SCALE]
        if scale.numel() == ours[LOG_SCALE].numel():
            ours[LOG_SCALE] = ours[LOG_SCALE].reshape(scale.shape)
    if fill_head:
        for name, value in model.named_parameters():
            if name.startswith('head.') and name not in ours:
                ours[name] = value.detach().clone()
                report.filled[name] = 'initialised by the config'
    for name in check_model_fit(ours, model):
        if name.startswith('head.loss_match.'):
            ours[name] = expected[name].detach().clone()
            report.filled[name] = 'a constant of the config'
        else:
            report.kept.append(name)
