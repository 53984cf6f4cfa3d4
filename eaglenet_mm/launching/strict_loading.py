"""Checkpoint loading that refuses weights that do not fit."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def require_matching_weights(runner: Any, partial: bool = False) -> None:
    """Let a Runner refuse checkpoints that do not fit its model.

    MMEngine loads what fits, warns, and leaves the rest random. Hooks run in
    the usual order (EMA weights are swapped between reading and loading).
    """
    # FlexibleRunner.load_checkpoint returns nothing and resume bypasses it;
    # the strategy does both, and removes the weights from what it returns
    flexible = hasattr(runner, 'strategy')
    owner = runner.strategy if flexible else runner
    load = owner.load_checkpoint

    def load_checkpoint(
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        **kwargs: Any,
    ) -> dict:
        del strict
        if flexible:
            after = kwargs.get('callback')

            def callback(checkpoint: dict) -> None:
                if 'state_dict' not in checkpoint:  # bare weights
                    weights = dict(checkpoint)
                    checkpoint.clear()
                    checkpoint['state_dict'] = weights
                if after is not None:
                    after(checkpoint)
                if partial:
                    _check_shapes(owner, checkpoint)

            kwargs['callback'] = callback
        try:
            checkpoint = load(
                filename,
                map_location=map_location,
                strict=not partial,
                **kwargs,
            )
            if partial and not flexible:
                _check_shapes(owner, checkpoint)
        except RuntimeError as err:
            raise ValueError(
                f'{filename} does not fit the model of the config, so it was '
                f'not used: {_shortened(str(err))}\nUse the config that '
                'the checkpoint was trained with (its meta["cfg"]), or a '
                'converter of tools/model_converters for a foreign one.'
            ) from err
        return checkpoint

    owner.load_checkpoint = load_checkpoint


def _check_shapes(owner: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse shapes for which MMEngine would keep random parameters."""
    found = {
        name.removeprefix('module.'): value
        for name, value in checkpoint.get('state_dict', checkpoint).items()
        if isinstance(value, Tensor)
    }
    wanted = {
        name.removeprefix('module.'): value
        for name, value in owner.model.state_dict().items()
    }
    # position embeddings that an encoder resizes while loading
    resized = {
        f'{name}.tower.positional_embedding'.removeprefix('module.')
        for name, module in owner.model.named_modules()
        if getattr(module, 'resize_positions', False)
    }
    common = found.keys() & wanted.keys()
    if not common:
        raise RuntimeError(
            f'it has none of the {len(wanted)} keys of the model, such as '
            f'{", ".join(list(wanted)[:3])}, but {", ".join(list(found)[:3])}'
        )
    different = [
        f'size mismatch for {name}: the model has '
        f'{tuple(wanted[name].shape)}, the checkpoint '
        f'{tuple(found[name].shape)}'
        for name in sorted(common - resized)
        if wanted[name].shape != found[name].shape
    ]
    if different:
        raise RuntimeError('\n'.join(different))


def _shortened(message: str, lines: int = 30, width: int = 1000) -> str:
    """Cut long lists of keys, whose beginning is enough."""
    kept = [
        line if len(line) <= width else f'{line[:width]} ...'
        for line in message.splitlines()
    ]
    if len(kept) > lines:
        kept = [*kept[:lines], f'... ({len(kept) - lines} more lines)']
    return '\n'.join(kept)
