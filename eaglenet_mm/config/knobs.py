"""Settings that matter in several places of a config, set by one name.

``num_frames=3`` on the command line, or in a config over ``_base_``, reaches
the frame sampling, the preprocessor and the head. A value that the config
cannot honour is refused with the reason.
"""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.type_name import type_name

SPLITS = ('train', 'val', 'test')
LOADERS = tuple(f'{split}_dataloader' for split in SPLITS)
#: Backbone arguments for the frame size.
_SIDES = ('image_size', 'img_size')
#: Backbone arguments for the clip length.
_LENGTHS = ('num_frames', 't_size')
#: Arguments of encoders and backbones for initial weights.
_WEIGHTS = ('pretrained', 'checkpoint', 'init_cfg')
_DEFAULT_TABLE = 77  # rows; the default of open_clip

#: Dotted names of settings, with values.
Places = dict[str, Any]


@dataclass
class Request:
    """New value of a knob in a config."""

    cfg: Config
    name: str
    value: Any
    declared: Any = None
    is_own: Callable[[str], bool] = lambda place: False

    def settings(self) -> Places:
        """Find the settings behind the knob, with their new values."""
        places = KNOBS[self.name](self)
        return {
            place: value
            for place, value in places.items()
            if not self.is_own(place)
        }

    def part(self, side: str) -> Mapping[str, Any]:
        """Settings of a part of the model, empty if it has none."""
        return (self.cfg.get('model') or {}).get(side) or {}

    def set_all(self, places: Places, why_not: str) -> Places:
        """Set all places, which must agree so far."""
        if not places:
            raise self.refusal(
                f'{why_not}. Set what your classes take instead, by its full '
                'dotted name.'
            )
        rest = {
            place: old
            for place, old in places.items()
            if not self.is_own(place)
        }
        is_changed = any(old != self.value for old in rest.values())
        if is_changed and len({str(same_path(x)) for x in rest.values()}) > 1:
            have = [f'{place} is {old!r}' for place, old in rest.items()]
            raise self.refusal(
                f'its settings differ: {name_some(have)}. Set each of them.'
            )
        return dict.fromkeys(rest, self.value)

    def following(self, places: Places) -> Places:
        """Settings whose value is that of the variable."""
        wanted = same_path(self.declared)
        return {
            place: old
            for place, old in places.items()
            if wanted is not None and same_path(old) == wanted
        }

    def check_number(self) -> None:
        """Refuse anything but a positive whole number."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{self.name} must be a whole number of at least 1, but got '
                f'{value!r}.'
            )

    def refusal(self, reason: str) -> ValueError:
        """Make the error for a value that the config cannot honour."""
        name = self.cfg.filename or 'the config'
        return ValueError(
            f'{self.name}={self.value!r} cannot be set for {name}: {reason}'
        )


def knob_places(cfg: Config, name: str) -> Places:
    """Find the main settings behind a knob, with their current values."""
    if name in ('data_root', 'ann_file'):
        return _in_datasets(cfg, name, SPLITS)
    if name == 'frame_cache':
        # no config names a cache, but a data set with a root takes one
        return {
            f'{place.removesuffix("data_root")}frame_cache': None
            for place in _in_datasets(cfg, 'data_root', SPLITS)
        }
    if name in ('batch_size', 'num_workers'):
        return {
            f'{loader}.{name}': cfg[loader].get(name)
            for loader in LOADERS
            if cfg.get(loader)
        }
    if name == 'image_size':
        return _in_transforms(cfg, 'size', 'ResizeCenterCrop')
    if name == 'max_words':
        return _in_transforms(cfg, 'max_words', 'TokenizeCaptions')
    return _in_transforms(cfg, name)


def _batch_size(request: Request) -> Places:
    request.check_number()
    places = knob_places(request.cfg, 'batch_size')
    if not places:
        raise request.refusal('it has no data loader.')
    return dict.fromkeys(request.following(places) or places, request.value)


def _num_workers(request: Request) -> Places:
    value = request.value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            'num_workers must be a whole number of at least 0, but got '
            f'{value!r}.'
        )
    places = knob_places(request.cfg, 'num_workers')
    if not places:
        raise request.refusal('it has no data loader.')
    return dict.fromkeys(places, value)


def _data_root(request: Request) -> Places:
    if not isinstance(request.value, str):
        raise TypeError(
            f'data_root must be a folder, but got {request.value!r}.'
        )
    return _of_datasets(request, SPLITS)


def _frame_cache(request: Request) -> Places:
    if not isinstance(request.value, str | None):
        raise TypeError(
            'frame_cache must be a folder below the data_root, or None, but '
            f'got {request.value!r}.'
        )
    places = knob_places(request.cfg, 'frame_cache')
    if not places:
        raise request.refusal('it has no data set with a data_root.')
    return dict.fromkeys(places, request.value)


def _ann_file(request: Request) -> Places:
    files, before = request.value, request.declared
    if not isinstance(files, Mapping) or not files:
        raise TypeError(
            'ann_file differs between splits: set ann_file.train, '
            f'ann_file.val or ann_file.test, but got {files!r}.'
        )
    found: Places = {}
    for split, file in files.items():
        if split not in SPLITS or not isinstance(file, str):
            raise ValueError(
                f'ann_file takes a file for each of {", ".join(SPLITS)}, but '
                f'got {split}={file!r}.'
            )
        declared = before.get(split) if isinstance(before, Mapping) else None
        of_split = Request(
            request.cfg, 'ann_file', file, declared, request.is_own
        )
        found.update(_of_datasets(of_split, (split,)))
    return found


def _of_datasets(request: Request, splits: Collection[str]) -> Places:
    """Settings of datasets: those of the variable, or all if they agree."""
    places = _in_datasets(request.cfg, request.name, splits)
    if not places:
        where = ' or '.join(f'{split}_dataloader' for split in splits)
        raise request.refusal(f'no data set of {where} has a {request.name}.')
    following = request.following(places)
    if following:
        return dict.fromkeys(following, request.value)
    return request.set_all(places, '')


def _num_frames(request: Request) -> Places:
    request.check_number()
    cfg, value = request.cfg, request.value
    sampled = knob_places(cfg, 'num_frames')
    places = {**sampled, **_in_model(cfg, 'num_frames')} if sampled else {}
    encoder = request.part('video_encoder')
    prefix = 'model.video_encoder.'
    length = encoder.get('num_input_frames')
    if encoder.get('layout') == 'clip':
        backbone = encoder.get('backbone') or {}
        stated = [backbone[key] for key in _LENGTHS if key in backbone]
        length = length or (stated[0] if stated else None)
        if value != length:
            raise request.refusal(
                f'its {prefix}backbone, {type_name(backbone)}, is built for '
                f'clips of {length} frames, and the head for the steps it '
                f'makes of them. Keep num_frames={length}, or take an encoder '
                'that sees frame by frame.'
            )
        # the head sees temporal steps, which are fewer than frames
        places = {
            place: old
            for place, old in places.items()
            if not place.startswith((prefix, 'model.head.'))
        }
    elif length is not None:
        # encoders with temporal shift call it num_segments
        places.update(_in_model(cfg, 'num_segments'))
        places[f'{prefix}num_input_frames'] = length
    return request.set_all(places, 'no transform of its pipelines has it')


def _max_words(request: Request) -> Places:
    request.check_number()
    cfg, value = request.cfg, request.value
    encoder = request.part('text_encoder')
    kind, table = type_name(encoder), _text_table(encoder)
    added: Places = {}
    if kind == 'RegisteredTextEncoder' and value != table:
        raise request.refusal(
            f'its model.text_encoder reads all of its {table} places of a '
            f'sentence at once. Keep max_words={table}, or take another text '
            'encoder.'
        )
    if kind == 'CLIPTextEncoder' and table is not None and value > table:
        arch = encoder.get('arch')
        is_folder = isinstance(arch, str) and ':' in arch  # with weights
        is_trained = encoder.get('pretrained', is_folder)
        if is_trained and not encoder.get('resize_positions'):
            raise request.refusal(
                'the table of positions of its pretrained model.text_encoder '
                f'({arch}) has {table} rows. Set at most '
                f'{table}, or model.text_encoder.resize_positions=True as '
                'well.'
            )
        added['model.text_encoder.max_words'] = value  # the table grows
    tokenized = knob_places(cfg, 'max_words')
    places = {**tokenized, **_in_model(cfg, 'max_words')} if tokenized else {}
    why_not = 'its pipelines have no TokenizeCaptions'
    return {**added, **request.set_all(places, why_not)}


def _image_size(request: Request) -> Places:
    request.check_number()
    value = request.value
    crops = knob_places(request.cfg, 'image_size')
    places = request.set_all(crops, 'its pipelines have no ResizeCenterCrop')
    encoder = request.part('video_encoder')
    backbone = encoder.get('backbone') or {}
    patch = backbone.get('patch_size')
    prefix = 'model.video_encoder'
    arch = encoder.get('arch') or _open_clip_arch(backbone)
    advice = f'Take one made for {value}'
    if arch is not None:
        vision = _resolved(arch).get('vision_cfg', {})
        patch, made_for = vision.get('patch_size'), vision.get('image_size')
        is_fixed = made_for != value
        if isinstance(encoder.get('arch'), Mapping) and not encoder.get(
            'pretrained'
        ):
            is_fixed = False
            places[f'{prefix}.arch.vision_cfg.image_size'] = value
        elif encoder.get('arch') is not None:
            advice += f', or set {prefix}.resize_positions=True as well'
        if encoder.get('resize_positions') or 'image_size' in encoder:
            is_fixed = is_fixed and not encoder.get('resize_positions')
            places[f'{prefix}.image_size'] = value
    else:
        sides = {key: backbone[key] for key in _SIDES if key in backbone}
        made_for = next(iter(sides.values()), None)
        is_fixed = made_for not in (None, value) and any(
            part.get(key) for part in (encoder, backbone) for key in _WEIGHTS
        )
        if backbone:
            places[f'{prefix}.image_size'] = value
        for key in sides:
            places[f'{prefix}.backbone.{key}'] = value
    if is_fixed:
        raise request.refusal(
            f'the positions of its {prefix} ({_kind_of(encoder)}) are made '
            f'for {made_for} pixels. {advice}.'
        )
    if isinstance(patch, int) and value % patch:
        raise request.refusal(
            f'its {prefix} cuts frames into patches of {patch} x {patch} '
            f'pixels. Take a multiple of {patch}.'
        )
    if 'num_patches' in request.part('head') and isinstance(patch, int):
        places['model.head.num_patches'] = (value // patch) ** 2
    return places


#: Knobs by name, each with the function that finds its settings.
KNOBS: dict[str, Callable[[Request], Places]] = {
    'ann_file': _ann_file,
    'batch_size': _batch_size,
    'data_root': _data_root,
    'frame_cache': _frame_cache,
    'image_size': _image_size,
    'max_words': _max_words,
    'num_frames': _num_frames,
    'num_workers': _num_workers,
}


def walk(settings: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Iterate over nested settings with their dotted names."""
    yield path, settings
    if isinstance(settings, Mapping | Config):
        parts: Any = settings.items()
    elif isinstance(settings, list | tuple):
        parts = enumerate(settings)
    else:
        return
    for key, value in parts:
        yield from walk(value, f'{path}.{key}' if path else str(key))


def same_path(value: Any) -> Any:
    """Normalise paths, so that ``data/story`` equals ``data/story/``."""
    return osp.normpath(value) if isinstance(value, str) and value else value


def _in_datasets(cfg: Config, key: str, splits: Collection[str]) -> Places:
    found: Places = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        path = f'{split}_dataloader.dataset'
        found |= _below(loader.get('dataset'), path, key)
    return found


def _in_transforms(cfg: Config, key: str, kind: str = '') -> Places:
    """Settings of transforms of one type, or of all that have the key."""
    return {
        f'{path}.{key}': settings.get(key)
        for loader in LOADERS
        for path, settings in walk(cfg.get(loader), loader)
        if isinstance(settings, Mapping)
        and '.pipeline.' in path
        and (type_name(settings) == kind if kind else key in settings)
    }


def _in_model(cfg: Config, key: str) -> Places:
    return _below(cfg.get('model'), 'model', key)


def _below(settings: Any, path: str, key: str) -> Places:
    """Settings called ``key`` at any depth."""
    return {
        f'{place}.{key}': part[key]
        for place, part in walk(settings, path)
        if isinstance(part, Mapping) and key in part
    }


def _text_table(encoder: Mapping[str, Any]) -> int | None:
    """Rows in the position table of a text tower, if known."""
    backbone = encoder.get('backbone') or {}
    if backbone and encoder.get('max_words'):
        return encoder['max_words']
    arch = encoder.get('arch') or _open_clip_arch(backbone)
    text = _resolved(arch).get('text_cfg') if arch is not None else None
    return None if text is None else text.get('context_length', _DEFAULT_TABLE)


def _open_clip_arch(backbone: Mapping[str, Any]) -> Any:
    """Architecture of a backbone ``open_clip.NAME``; else None."""
    library, _, model = str(backbone.get('type')).partition('.')
    return (model or backbone.get('arch')) if library == 'open_clip' else None


def _resolved(arch: Any) -> Mapping[str, Any]:
    """Tower settings of an open_clip architecture; empty if unknown."""
    from eaglenet_mm.models.encoders.clip_tower import resolve_arch

    try:
        return resolve_arch(arch)
    except (ValueError, KeyError, OSError):  # the encoder reports it in full
        return {}


def _kind_of(encoder: Mapping[str, Any]) -> str:
    """Name of an encoder in messages."""
    return str(encoder.get('arch') or type_name(encoder.get('backbone')))
