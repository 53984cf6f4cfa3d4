"""Backbones by name: of MMEngine's registries, timm or open_clip."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from eaglenet_mm.registry import MODELS, SCOPE
from eaglenet_mm.utils.type_name import named_class, scoped_name

from .open_clip_towers import build_open_clip_tower, pixel_statistics

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class Backbone:
    """A backbone and what its library states about its input.

    Args:
        module (nn.Module): The backbone.
        name (str): Its ``type``, for messages.
        mean (tuple): Mean of the pixels, red, green, blue, in [0, 1] units.
        std (tuple): Their deviations.
        image_size (tuple, optional): Height and width. None: not stated.
        initialises_itself (bool): Whether its weights are final after
            construction, so that MMEngine must not draw them again.
    """

    module: nn.Module
    name: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    image_size: tuple[int, int] | None = None
    initialises_itself: bool = False


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build a backbone by the name in its config.

    Args:
        config (dict): ``type`` and the arguments of the backbone. The type is
            ``'timm.NAME'`` (arguments of ``timm.create_model``;
            ``pretrained=False`` and ``num_classes=0`` by default),
            ``'open_clip.NAME'`` or ``'open_clip'`` with ``arch`` (see
            :func:`~.open_clip_towers.build_open_clip_tower`), or a name in a
            registry of MMEngine's tree, ``'mmaction.ResNet'``; or a class or
            its full path, as pure Python configs have it.

    Returns:
        Backbone: In training mode.

    Raises:
        ImportError: If the package that has the backbone is not installed.
        TypeError: If the config has no ``type``, or it is neither a string
            nor a class.
        ValueError: If the name is unknown.
    """
    name = config.get('type')
    if isinstance(name, type):
        return _built_from_class(config, name)
    if not isinstance(name, str):
        raise TypeError(
            "backbone needs a type such as 'mmaction.ResNet', "
            "'timm.resnet18' or 'open_clip.ViT-B-16-SigLIP', but got "
            f'{name!r}. Add it to the config.'
        )
    scope, dot, _ = name.partition('.')
    if scope == 'open_clip':
        return _open_clip_backbone(config)
    if scope == 'timm' and dot:
        return _timm_backbone(config)
    if name.count('.') > 1 and isinstance(named_class(name), type):
        return _built_from_class(config, named_class(name))
    return _registry_backbone(config)


def require_package(package: str, user: str, install: str) -> None:
    """Raise unless an optional package is installed.

    Args:
        package (str): Name of the package.
        user (str): Who needs it.
        install (str): What to give to pip.

    Raises:
        ImportError: If it is missing.
    """
    try:
        found = find_spec(package) is not None
    except ValueError:  # a stand-in in sys.modules without a spec
        found = True
    if not found:
        raise ImportError(
            f'{user} needs the package {package}, which is not installed. '
            f"Install it with: pip install '{install}'."
        )


def _refuse_name(name: str, library: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(name.rpartition('.')[2], known, 3)
    return ValueError(
        f"No backbone '{name}' is known to {library}. Close names: "
        f'{near or "none"}. Mend the type; names of other libraries need '
        "their prefix, for example 'mmaction.ResNet'."
    )


def _timm_backbone(config: Mapping[str, Any]) -> Backbone:
    options = dict(config)
    name = options.pop('type')
    require_package('timm', f"The backbone '{name}'", 'timm')
    import timm

    model_name = name.partition('.')[2]
    if not timm.is_model(model_name.partition('.')[0]):
        raise _refuse_name(name, 'timm', timm.list_models())
    options = {'pretrained': False, 'num_classes': 0, **options}
    module: Any = timm.create_model(model_name, **options)
    stated = module.pretrained_cfg
    size = getattr(getattr(module, 'patch_embed', None), 'img_size', None)
    return Backbone(
        module,
        name,
        mean=tuple(stated.get('mean', IMAGENET_MEAN)),
        std=tuple(stated.get('std', IMAGENET_STD)),
        image_size=_pair(size or stated.get('input_size', (3, 224, 224))[1:]),
        initialises_itself=True,
    )


def _open_clip_backbone(config: Mapping[str, Any]) -> Backbone:
    module, arch = build_open_clip_tower(config, 'vision')
    mean, std = pixel_statistics(arch, config.get('pretrained'))
    return Backbone(
        module,
        config['type'],
        mean=mean,
        std=std,
        image_size=_pair(module.image_size),
        initialises_itself=True,
    )


def _registry_backbone(config: Mapping[str, Any]) -> Backbone:
    name = config['type']
    scope, dot, bare = name.rpartition('.')
    if dot:
        require_package(scope, f"The backbone '{name}'", scope)
        _import_registry(scope, name)
    with MODELS.switch_scope_and_registry(scope or SCOPE) as registry:
        own = not dot or registry.scope == scope  # else MMEngine's fallback
        if not own or registry.get(bare) is None:
            known = sorted(registry.module_dict) if own else []
            raise _refuse_name(name, scope or SCOPE, known)
        # within the scope, so that a backbone finds its own parts
        module = registry.build({**config, 'type': bare})
    return _complete(module, name)


def _built_from_class(config: Mapping[str, Any], kind: type) -> Backbone:
    """Build what a pure Python config names by its class."""
    scope = kind.__module__.partition('.')[0]
    with MODELS.switch_scope_and_registry(scope) as registry:
        return _complete(
            registry.build({**config, 'type': kind}), scoped_name(kind)
        )


def _complete(module: Any, name: str) -> Backbone:
    if getattr(module, 'pretrained', '') is None:
        # some of mmaction's would inflate a file that is not there
        module.pretrained2d = False
    return Backbone(module, name)


def _import_registry(scope: str, name: str) -> None:
    """Say why a library cannot be imported; MMEngine would only log it."""
    try:
        import_module(f'{scope}.registry')
    except ImportError as err:
        if isinstance(err, ModuleNotFoundError) and err.name in (
            scope,
            f'{scope}.registry',
        ):
            return  # it may keep its registry elsewhere
        raise ImportError(
            f"The backbone '{name}' needs the package {scope}, which is "
            f'installed but cannot be imported: {err}. Install what it '
            f'misses, for example with: pip install {scope}.'
        ) from err


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
