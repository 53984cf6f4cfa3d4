"""Whether a checkpoint is of a method, and complete."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from eaglenet_mm.utils.name_lists import name_some

from .clip_names import CLIP_SCALE, clip_names
from .release_methods import METHODS, describe, recognise
from .release_parts import has_lstm, head_names, reason_unused
from .release_source import ReleaseSource


def check_method(
    state_dict: Mapping[str, Tensor],
    method: str,
    model: nn.Module | None,
    is_fresh: bool,
) -> None:
    """Refuse checkpoints and models of another method.

    Args:
        state_dict (dict[str, Tensor]): Of the release.
        method (str): A key of :data:`~.release_methods.METHODS`.
        model (nn.Module, optional): Retriever of the config.
        is_fresh (bool): Whether the head of a checkpoint of CLIP alone is
            started anew.

    Raises:
        ValueError: If the checkpoint or the model is of another method.
    """
    wanted = METHODS[method]
    head = getattr(model, 'head', None)
    if model is not None and wanted.head not in {
        kind.__name__ for kind in type(head).__mro__
    }:
        raise ValueError(
            f'{method} gives the weights of {wanted.head}, but the head of '
            f'the config is {type(head).__name__}. Choose a config of '
            f'{wanted.head}, or the method of the config.'
        )
    kind = recognise(state_dict)
    if kind is None:
        raise ValueError(
            f'This is no checkpoint of {wanted.title}, nor of another method '
            f'known here; its names are {name_some(sorted(state_dict))}. Give '
            'the file of the weights that the release wrote.'
        )
    # DRL's heads without weights have the names of CLIP4Clip
    is_plain_drl = (
        method == 'wti'
        and kind.startswith('clip4clip_')
        and kind != 'clip4clip_tight'
        and head is not None
        and getattr(head, 'text_weight', None) is None
    )
    if kind != method and not is_fresh and not is_plain_drl:
        message = f'This is not {wanted.title} but {describe(kind)}'
        if kind == 'clip4clip_mean':
            lacking = head_names(method, state_dict)
            message += (
                f'. It lacks {name_some(lacking) or "the token weights"}; add '
                f'--initialise-from-clip to start a training of '
                f'{wanted.title} from it'
            )
        raise ValueError(f'{message}.')
    if (
        is_fresh
        and model is None
        and method
        not in (
            'clip4clip_mean',
            'clip4clip_transformer',
        )
    ):
        raise ValueError(
            f'The checkpoint is of CLIP alone, and the head of {wanted.title} '
            'has parameters that CLIP has no start for. Give --config, whose '
            'model starts them.'
        )


def check_names(
    source: ReleaseSource, method: str, may_lack_head: bool
) -> None:
    """Set aside what is unused; refuse what is unknown or missing.

    Args:
        source (ReleaseSource): Changed in place.
        method (str): A key of :data:`~.release_methods.METHODS`.
        may_lack_head (bool): Whether the head may be incomplete.

    Raises:
        ValueError: If a name is unknown or missing.
    """
    with_lstm = has_lstm(source.tensors)
    for name in list(source.tensors):
        reason = reason_unused(name, with_lstm)
        if method == 'clip4clip_tight' and name == CLIP_SCALE:
            reason = "CLIP's temperature, which tightTransf does not use"
        if reason is not None:
            del source.tensors[name]
            source.dropped[source.origins[name][0]] = reason
    in_clip = clip_names(source.tensors)
    if method == 'clip4clip_tight':
        in_clip.remove(CLIP_SCALE)
    in_head = head_names(method, source.tensors)
    known = {*in_clip, *in_head}
    unknown = source.unknown + [
        source.origins[name][0] for name in source.tensors if name not in known
    ]
    missing = [name for name in in_clip if name not in source.tensors]
    if not may_lack_head:
        missing += [name for name in in_head if name not in source.tensors]
    lines = [
        f'{len(names)} names {kind}: {name_some(names)}'
        for kind, names in (('unknown', unknown), ('missing', missing))
        if names
    ]
    if not lines:
        return
    mend = 'Is the file complete, and of the method it should be?'
    if any(name.startswith('clip.visual.conv2.') for name in unknown):
        mend = (
            "CLIP4Clip's 3-d patches (--linear_patch 3d) have no counterpart "
            'here; only checkpoints with 2-d patches can be converted.'
        )
    elif any('position_embeddings' in n or 'resblocks' in n for n in missing):
        mend = (
            'Positions and blocks that are missing as a whole can start from '
            "CLIP's text tower, as the releases do: add "
            '--initialise-from-clip.'
        )
    raise ValueError(
        f'The checkpoint does not have the parameters of '
        f'{METHODS[method].title}; {"; ".join(lines)}. {mend}'
    )
