"""Checkpoints that must fit: a test on random weights is worse than none."""

from collections.abc import Callable
from typing import Any

from mmengine.runner import Runner


def require_matching_weights(runner: Runner) -> None:
    """Let a Runner refuse checkpoints that do not fit its model.

    MMEngine loads what fits, warns, and leaves the rest random. The order of
    its hooks (EMA weights are exchanged between reading and loading) stays.

    Args:
        runner (Runner): Its ``load_checkpoint`` is replaced by a strict one,
            which testing and resuming use as well.
    """
    load = runner.load_checkpoint

    def load_checkpoint(
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        **kwargs: Any,
    ) -> dict:
        del strict
        try:
            return load(filename, map_location, strict=True, **kwargs)
        except RuntimeError as err:
            raise ValueError(
                f'{filename} does not fit the model of the config, so it was '
                f'not loaded: {_shortened(str(err))}\nUse the config that '
                'the checkpoint was trained with (its meta["cfg"]), or a '
                'converter of tools/model_converters for a foreign one.'
            ) from err

    runner.load_checkpoint = load_checkpoint


def _shortened(message: str, lines: int = 30, width: int = 1000) -> str:
    """Cut long lists of keys; their beginning shows what is wrong."""
    kept = [
        line if len(line) <= width else f'{line[:width]} ...'
        for line in message.splitlines()
    ]
    if len(kept) > lines:
        kept = [*kept[:lines], f'... ({len(kept) - lines} more lines)']
    return '\n'.join(kept)
