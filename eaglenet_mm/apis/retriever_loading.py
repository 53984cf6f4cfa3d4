"""From a config or its name, and a checkpoint, to a model to search with."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.runner import CheckpointLoader, load_checkpoint

from eaglenet_mm.config import open_config, skip_pretrained
from eaglenet_mm.config.start_weights import names_weights
from eaglenet_mm.launching import check_checkpoint
from eaglenet_mm.models.retrievers import TextVideoRetriever
from eaglenet_mm.registry import MODELS, SCOPE


def find_config(model: str | os.PathLike | Config) -> Config:
    """Read a config by its file or its name, or copy one.

    Names are of configs that the package ships, such as
    ``'eaglenet_msrvtt'``; errors are those of
    :func:`~eaglenet_mm.config.reading.open_config`.
    """
    if isinstance(model, Config):
        return copy.deepcopy(model)
    return open_config(model)


def load_retriever(
    cfg: Config,
    checkpoint: str | None,
    device: str | torch.device | None = None,
    *,
    untrained: bool = False,
    encoders_only: bool = False,
) -> TextVideoRetriever:
    """Build the model of a config with the weights of a checkpoint.

    Pretrained weights that the config names are not read then: the checkpoint
    has them all.

    Args:
        cfg (Config): With ``model``.
        checkpoint (str, optional): File or URL. None takes the pretrained
            weights that the config names, for a head without parameters.
        device (str | torch.device, optional): Default: the GPU if there is
            one.
        untrained (bool): Whether parts without weights may start from
            random numbers, always the same ones, with a loud warning.
            Default: False, they are an error.
        encoders_only (bool): Whether what the checkpoint has of a head is
            left out, for a head without parameters on encoders that were
            trained with another. Default: False.

    Returns:
        TextVideoRetriever: In evaluation mode. ``model.untrained`` lists the
        parts with random weights.

    Raises:
        ValueError: If it does not fit the model, or there is none and parts
            have no weights.
    """
    cfg = copy.deepcopy(cfg)
    random_parts: list[str] = []
    if checkpoint is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # an index must fit the next time, too
            model = _build(cfg)
        random_parts += [
            name
            for name in ('text_encoder', 'video_encoder')
            if not names_weights(cfg.model.get(name))
        ]
    else:
        check_checkpoint(checkpoint)
        skip_pretrained(cfg)
        model = _build(cfg)
        try:
            _load_weights(model, checkpoint, encoders_only)
        except RuntimeError as err:
            raise ValueError(
                f'{checkpoint} does not fit the model of the config: {err}\n'
                'Use the config that the checkpoint was trained with.'
            ) from err
    names = [name for name, _ in model.head.named_parameters()]
    has_own = any(not name.startswith('loss') for name in names)
    if has_own and (checkpoint is None or encoders_only):
        random_parts.append('head')
    if random_parts and not untrained and checkpoint is not None:
        raise ValueError(
            f'{type(model.head).__name__} has parameters, which {checkpoint} '
            'does not hold. Give a checkpoint of this head with --checkpoint.'
        )
    if random_parts and not untrained:
        raise ValueError(
            f'No weights were given, and {" and ".join(random_parts)} of '
            f'{cfg.filename or "the config"} would start from random '
            'numbers, so what is found would mean nothing. Give a '
            'checkpoint, or untrained=True (--untrained) to try out the rest.'
        )
    if random_parts:
        warn_of_random_weights(random_parts)
    model.untrained = random_parts
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def _load_weights(model: Any, checkpoint: str, encoders_only: bool) -> None:
    if not encoders_only:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
        return
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights = content.get('state_dict', content)
    found = model.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith('head.')},
        strict=False,
    )
    missing = [k for k in found.missing_keys if not k.startswith('head.')]
    if missing or found.unexpected_keys:
        raise RuntimeError(
            f'missing {missing[:5]}, unexpected {found.unexpected_keys[:5]}'
        )


def _build(cfg: Config) -> Any:
    """Build and initialise a model, with warnings only.

    MMEngine writes a line for every parameter.
    """

    def is_news(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    logger = MMLogger.get_current_instance()
    logger.addFilter(is_news)
    try:
        model = MODELS.build({'_scope_': SCOPE, **cfg.model})
        model.init_weights()
    finally:
        logger.removeFilter(is_news)
    return model


def warn_of_random_weights(parts: list[str]) -> None:
    """Write a warning that cannot be overlooked."""
    line = f'RANDOM WEIGHTS in {", ".join(parts)}: results mean nothing.'
    bar = '!' * (len(line) + 4)
    print_log(
        f'\n{bar}\n! {line} !\n{bar}',
        logger='current',
        level=logging.WARNING,
    )
