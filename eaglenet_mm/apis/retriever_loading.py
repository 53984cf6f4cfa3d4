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
    """Read a config by its file or its name.

    Args:
        model (str | PathLike | Config): A file; the name of a config that
            the package ships, such as ``'eaglenet_msrvtt'``; or a config,
            which is copied.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError, KeyError, ValueError, TypeError: See
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
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it does not fit the model, or there is none and parts
            have no weights.
    """
    cfg = copy.deepcopy(cfg)
    if checkpoint is None:
        model = _build_without_checkpoint(cfg, untrained)
    else:
        check_checkpoint(checkpoint)
        skip_pretrained(cfg)
        model = _build(cfg)
        model.untrained = []
        try:
            if encoders_only:
                model.untrained = _load_encoders(model, checkpoint, untrained)
            else:
                load_checkpoint(
                    model, checkpoint, map_location='cpu', strict=True
                )
        except RuntimeError as err:
            raise ValueError(
                f'{checkpoint} does not fit the model of the config: {err}\n'
                'Use the config that the checkpoint was trained with.'
            ) from err
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def _load_encoders(model: Any, checkpoint: str, untrained: bool) -> list[str]:
    """Load all but a head; return the parts that have random weights."""
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
    return _check_head(model.head, checkpoint, untrained)


def _check_head(head: Any, source: str, untrained: bool) -> list[str]:
    """Refuse a head whose parameters would be random numbers."""
    own = [
        name
        for name, _ in head.named_parameters()
        if not name.startswith('loss')
    ]
    if own and not untrained:
        raise ValueError(
            f'{type(head).__name__} has parameters, which {source} does not '
            'hold. Give a checkpoint of this head with --checkpoint.'
        )
    return ['head'] if own else []


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


def _build_without_checkpoint(cfg: Config, untrained: bool) -> Any:
    """Build a model from pretrained encoders, or from random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # an index must fit the next time, too
        model = _build(cfg)
    parts = [
        name
        for name in ('text_encoder', 'video_encoder')
        if not names_weights(cfg.model.get(name))
    ]
    if any(
        not name.startswith('loss')
        for name, _ in model.head.named_parameters()
    ):
        parts.append('head')
    if parts and not untrained:
        raise ValueError(
            f'No weights were given, and {" and ".join(parts)} of '
            f'{cfg.filename or "the config"} would start from random '
            'numbers, so what is found would mean nothing. Give a '
            'checkpoint, or untrained=True (--untrained) to try out the rest.'
        )
    if parts:
        warn_of_random_weights(parts)
    model.untrained = parts
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
