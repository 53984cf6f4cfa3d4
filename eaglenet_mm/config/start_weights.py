"""Initial weights in model configs."""

from typing import Any

from mmengine.config import Config

from eaglenet_mm.utils.type_name import type_name

#: Arguments that name or request initial weights.
_START_WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path')
#: Prefixes of open_clip models that include weights.
_MODEL_FOLDERS = ('local-dir:', 'hf-hub:')
#: MMEngine's initialisation from a checkpoint: registered name, and class.
_PRETRAINED = ('Pretrained', 'PretrainedInit')


def skip_pretrained(cfg: Config) -> None:
    """Keep the model from loading initial weights.

    Use this if a checkpoint provides all weights: the initial ones may be
    unavailable, and would be overwritten.
    """
    _skip_weights(cfg.model)


def _skip_weights(settings: Any) -> None:
    """Remove initial weights from settings, in place."""
    # imported here, because reading a config does not need the models
    from eaglenet_mm.models.encoders.clip_tower import (
        keep_pixel_statistics,
    )

    if isinstance(settings, list | tuple):
        for part in settings:
            _skip_weights(part)
    if not isinstance(settings, dict):
        return
    keep_pixel_statistics(settings)
    for name in _START_WEIGHTS:
        if name == 'pretrained' or isinstance(settings.get(name), str):
            settings.pop(name, None)
    for name, value in settings.items():
        # timm_model_pretrained of open_clip, clip_pretrained of mmaction
        if name.endswith('_pretrained') and value:
            settings[name] = False
        elif name == 'init_cfg':
            settings[name] = _without_weights(value)
    if _has_model_folder(settings):
        settings['pretrained'] = False
    for value in settings.values():
        _skip_weights(value)


def _without_weights(init: Any) -> Any:
    """Drop initialisation from a file."""
    if isinstance(init, list | tuple):
        kept = [part for part in init if _without_weights(part) is not None]
        return kept or None
    if not isinstance(init, dict):
        return init
    return None if type_name(init) in _PRETRAINED else init


def names_weights(settings: Any) -> bool:
    """Whether the settings of an encoder name initial weights."""
    if isinstance(settings, list | tuple):
        return any(map(names_weights, settings))
    if not isinstance(settings, dict):
        return False
    if type_name(settings) in _PRETRAINED:  # of init_cfg
        return True
    if any(
        value and (name in _START_WEIGHTS or name.endswith('_pretrained'))
        for name, value in settings.items()
    ):
        return True
    if _has_model_folder(settings) and settings.get('pretrained') is not False:
        return True
    return any(map(names_weights, settings.values()))


def asks_for_random_weights(settings: Any) -> bool:
    """Whether an encoder, or its backbone, has ``pretrained=False``."""
    parts = settings, settings.get('backbone') or {}
    return any(part.get('pretrained') is False for part in parts)


def _has_model_folder(settings: dict[str, Any]) -> bool:
    """Whether weights come with the architecture, of the two libraries."""
    names = (settings.get('arch'), str(settings.get('type')).partition('.')[2])
    return any(str(name).startswith(_MODEL_FOLDERS) for name in names) or (
        type_name(settings) == 'HuggingFaceTextEncoder'
        and isinstance(settings.get('model'), str)
    )
