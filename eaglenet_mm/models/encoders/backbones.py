"""Backbones by name, from MMEngine's registries, timm or open_clip."""

from __future__ import annotations

import difflib
import logging
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmengine.logging import print_log
from torch import nn

from eaglenet_mm.models.encoders.clip_tower import (
    build_tower,
    pixel_statistics,
    resolve_arch,
)
from eaglenet_mm.models.encoders.clip_weights import (
    load_start_weights,
    name_misfits,
    read_state_dict,
)
from eaglenet_mm.registry import MODELS, SCOPE
from eaglenet_mm.utils.downloads import DownloadError, require_hub
from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.type_name import named_class, scoped_name

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: Config keys of an open_clip tower besides ``type``.
TOWER_KEYS = ('arch', 'pretrained', 'resize_positions')
#: Prefixes of the backbone in checkpoints of whole models.
PREFIXES = ('backbone.', 'visual.')


@dataclass
class Backbone:
    """A backbone and the input that its library states for it."""

    module: nn.Module
    #: Its ``type``, for messages.
    name: str
    #: Pixel statistics of red, green and blue, in units of [0, 1].
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    #: Height and width, None if not stated.
    image_size: tuple[int, int] | None = None
    #: Whether MMEngine must not initialise the weights again.
    initialises_itself: bool = False


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build a backbone from a config.

    ``type`` is ``'timm.NAME'`` (other keys are arguments of
    ``timm.create_model``; ``pretrained=False`` and ``num_classes=0`` by
    default); ``'open_clip.NAME'``, or ``'open_clip'`` with ``arch``; a name
    in an MMEngine registry such as ``'mmaction.ResNet'``; or, as in pure
    Python configs, a class or its full path.
    """
    name = config.get('type')
    if isinstance(name, type):
        return _class_backbone(config, name)
    if not isinstance(name, str):
        raise TypeError(
            "backbone needs a type such as 'mmaction.ResNet', "
            "'timm.resnet18' or 'open_clip.ViT-B-16-SigLIP', but got "
            f'{name!r}. Add it to the config.'
        )
    scope, dot, _ = name.partition('.')
    if scope == 'open_clip':
        module, arch = build_open_clip_tower(config, 'vision')
        return Backbone(
            module,
            name,
            *pixel_statistics(arch, config.get('pretrained')),
            image_size=_pair(module.image_size),
            initialises_itself=True,
        )
    if scope == 'timm' and dot:
        return _timm_backbone(config)
    if name.count('.') > 1 and isinstance(named_class(name), type):
        return _class_backbone(config, named_class(name))
    return _registry_backbone(config)


def require_package(package: str, user: str, install: str) -> None:
    """Raise if a package is missing; ``install`` is its name for pip."""
    try:
        found = find_spec(package) is not None
    except ValueError:  # a stub in sys.modules without a spec
        found = True
    if not found:
        raise ImportError(
            f'{user} needs the package {package}, which is not installed. '
            f"Install it with: pip install '{install}'."
        )


def build_open_clip_tower(
    config: Mapping[str, Any], side: str, *, max_words: int | None = None
) -> tuple[Any, str | Mapping[str, Any]]:
    """Build the ``'vision'`` or ``'text'`` tower of an open_clip model.

    Unlike :class:`~.clip_encoder.CLIPEncoder`, which accepts only CLIP's
    transformers, this accepts any tower, such as ResNets, SigLIP and EVA.
    ``config`` has ``type='open_clip.NAME'``, or ``type='open_clip'`` with
    ``arch``; optionally ``pretrained`` and ``resize_positions`` of
    ``CLIPEncoder``. Returns the tower and its arch.
    """
    config = dict(config)
    _, _, name = config.pop('type').partition('.')
    unknown = sorted(set(config) - set(TOWER_KEYS))
    if unknown:
        raise ValueError(
            f'An open_clip backbone takes only {TOWER_KEYS}, but got '
            f'{unknown} too. Put options of the tower into arch.vision_cfg '
            'or arch.text_cfg.'
        )
    arch = config.get('arch') or name
    if not arch or (name and config.get('arch')):
        raise ValueError(
            "An open_clip backbone needs either a name, type='open_clip."
            "ViT-B-16-SigLIP', or type='open_clip' with arch=dict(embed_dim="
            f'..., vision_cfg=dict(...)), but got the name {name!r} and '
            f'arch={config.get("arch")!r}. Set exactly one of them.'
        )
    tower = build_tower(resolve_arch(arch), side, context_length=max_words)
    resizes = config.get('resize_positions', False)
    load_start_weights(tower, side, arch, config.get('pretrained'), resizes)
    return tower, arch


def _timm_backbone(config: Mapping[str, Any]) -> Backbone:
    options = dict(config)
    name = options.pop('type')
    require_package('timm', f"The backbone '{name}'", 'timm')
    import timm

    model_name = name.partition('.')[2]
    if not timm.is_model(model_name.partition('.')[0]):
        raise _unknown_backbone(name, 'timm', timm.list_models())
    options = {'pretrained': False, 'num_classes': 0, **options}
    if isinstance(options['pretrained'], str):
        raise ValueError(
            f"The backbone '{name}' takes pretrained=True or False, but got "
            f'{options["pretrained"]!r}. For a file, set checkpoint of the '
            'encoder.'
        )
    # an overlay may name a file
    if options['pretrained'] and 'pretrained_cfg_overlay' not in options:
        _require_timm_weights(model_name)
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


def _require_timm_weights(name: str) -> None:
    """Raise within seconds if weights cannot be downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    stated = get_pretrained_cfg(name)
    place = stated and stated.hf_hub_id
    files = ('model.safetensors', 'pytorch_model.bin')
    if not place or any(
        isinstance(try_to_load_from_cache(place, file), str) for file in files
    ):
        return
    try:
        require_hub()
    except ConnectionError as err:
        raise DownloadError(
            f"The weights of 'timm.{name}' are not in the Hugging Face cache "
            f'and could not be downloaded: {err}. Download {files[0]} of '
            f'https://huggingface.co/{place} by other means, set checkpoint '
            'of the encoder to its path and backbone.pretrained to False.'
        ) from err


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
            raise _unknown_backbone(name, scope or SCOPE, known)
        # within the scope, so that a backbone finds its own parts
        module = registry.build({**_known_weights(config), 'type': bare})
    return _complete(module, name)


def _class_backbone(config: Mapping[str, Any], kind: type) -> Backbone:
    """Build a backbone from a class, as pure Python configs name it."""
    scope = kind.__module__.partition('.')[0]
    with MODELS.switch_scope_and_registry(scope) as registry:
        module = registry.build({**_known_weights(config), 'type': kind})
    return _complete(module, scoped_name(kind))


def _known_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``pretrained``, which MMEngine's backbones read much later.

    False, which they do not know, is left out.
    """
    settings = dict(config)
    source = settings.get('pretrained')
    if source is False:
        del settings['pretrained']
    if (
        isinstance(source, str)
        and '://' not in source
        and not osp.isfile(osp.expanduser(source))
    ):
        raise FileNotFoundError(
            f"pretrained='{source}' of the backbone '{config['type']}' is "
            'neither a file nor a URL. Correct it, or set it to None if it '
            'belongs to the backbone that was there before.'
        )
    return settings


def _complete(module: Any, name: str) -> Backbone:
    if getattr(module, 'pretrained', '') is None:
        # else some mmaction backbones try to inflate a missing file
        module.pretrained2d = False
    return Backbone(module, name)


def _unknown_backbone(name: str, library: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(name.rpartition('.')[2], known, 3)
    return ValueError(
        f"{library} has no backbone '{name}'. Close names: "
        f'{near or "none"}. Correct the type; names of other libraries need '
        "their prefix, for example 'mmaction.ResNet'."
    )


def _import_registry(scope: str, name: str) -> None:
    """Import a library's registry; MMEngine would only log a failure."""
    try:
        import_module(f'{scope}.registry')
    except ImportError as err:
        if isinstance(err, ModuleNotFoundError) and err.name in (
            scope,
            f'{scope}.registry',
        ):
            return  # the registry may be elsewhere
        raise ImportError(
            f"The backbone '{name}' needs the package {scope}, which is "
            f'installed but cannot be imported: {err}. Install what is '
            f'missing, for example with: pip install {scope}.'
        ) from err


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of a size, which may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def load_backbone_weights(backbone: nn.Module, path: str, name: str) -> None:
    """Load a checkpoint of a backbone or of a model that contains it.

    If names start with ``'backbone.'`` or ``'visual.'``, as in mmaction2's
    recognisers, only those are loaded. Unused tensors, such as those of a
    classifier, are logged as a warning.
    """
    tensors = read_state_dict(path)
    for prefix in PREFIXES:
        inner = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if inner:
            tensors = inner
            break
    expected = backbone.state_dict()
    extra = [key for key in tensors if key not in expected]
    misfits = name_misfits(
        {key: value for key, value in tensors.items() if key in expected},
        expected,
        # missing from older checkpoints, and not needed
        [key for key in expected if key.endswith('num_batches_tracked')],
    )
    if misfits:
        raise ValueError(
            f"checkpoint='{path}' does not fit the backbone '{name}'; "
            f'{misfits}. Build the backbone that the file was saved from, or '
            'use a file of this backbone.'
        )
    if extra:
        print_log(
            f"'{path}' has {len(extra)} tensors that the backbone '{name}' "
            f'does not use: {name_some(extra)}.',
            logger='current',
            level=logging.WARNING,
        )
    backbone.load_state_dict(tensors, strict=False)
