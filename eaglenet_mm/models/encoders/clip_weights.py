"""CLIP weights: finding, safe loading, and fitting to a tower."""

from __future__ import annotations

import math
import os.path as osp
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import _find_checkpoint_in_dir, parse_model_name
from open_clip.pretrained import (
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eaglenet_mm.models.encoders.clip_tower import (
    fetch_for_arch,
    is_model_folder,
    resolve_arch,
)
from eaglenet_mm.utils.downloads import DownloadError, fetch_from_hub
from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_file

#: Name of the position embeddings in both towers.
TABLE = 'positional_embedding'
#: Number of well-trained text positions, which are kept unchanged, out of
#: CLIP's total (`Long-CLIP <https://arxiv.org/abs/2403.15378>`_, section 3.1).
WELL_TRAINED_ROWS, ROWS_OF_CLIP = 20, 77
#: Weights files of a Hub repository, if no other file is named.
WEIGHTS_OF_HUB = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
#: Keys that a state dict may be nested under.
WRAPPINGS = ('state_dict', 'model', 'module')
#: Sizes that OpenAI's files store as tensors.
OPENAI_SIZES = ('input_resolution', 'context_length', 'vocab_size')
#: Width of an attention head in all of OpenAI's models.
OPENAI_HEAD_WIDTH = 64
#: The text tower's mask, which archives may store for each block.
CAUSAL_MASK = 'attn_mask'
#: Prefixes of the text tower in a complete CLIP model.
TEXT_PARTS = (
    'positional_embedding',
    'text_projection',
    'token_embedding',
    'transformer',
    'ln_final',
)
HUGGING_FACE_PARTS = ('vision_model.', 'text_model.', 'visual_projection.')

# -- finding ----------------------------------------------------------------


@dataclass
class CLIPWeights:
    """Tensors of a file and their origin."""

    #: Named as in a complete CLIP model.
    tensors: dict[str, Tensor]
    path: str
    #: OpenAI's weights need QuickGELU and heads of width 64, which cannot be
    #: checked by shapes.
    is_openai: bool


def load_start_weights(
    tower: VisionTransformer | TextTransformer,
    side: str,
    arch: str | Mapping[str, Any],
    pretrained: str | bool | None,
    resize_positions: bool,
) -> str:
    """Load ``pretrained`` or a model folder; describe it, '' for random."""
    source = _find_start_weights(pretrained, arch)
    if source is None:
        return ''
    weights = load_clip_weights(source, arch)
    count = load_tower(
        tower,
        weights,
        side,
        quick_gelu=resolve_arch(arch)['quick_gelu'],
        resize_positions=resize_positions,
    )
    return f'{count} tensors loaded from {weights.path}'


def _find_start_weights(
    pretrained: str | bool | None, arch: str | Mapping[str, Any]
) -> str | None:
    """``pretrained`` or the file of a model folder; None for random."""
    if pretrained is True:
        raise ValueError(
            'pretrained must be a tag, a file, None, or False for random '
            'weights, but got True. Set a tag or a file.'
        )
    if pretrained is not None or not is_model_folder(arch):
        return pretrained or None
    schema, place = parse_model_name(arch)
    if schema == 'local-dir':
        folder = Path(place).expanduser()
        found = _find_checkpoint_in_dir(folder)
    else:
        return fetch_for_arch(arch, place, WEIGHTS_OF_HUB)
    if found is None:
        raise FileNotFoundError(
            f"arch='{arch}' should come with weights, but {folder} has no "
            '*.safetensors, *.bin or *.pth. Complete the folder, set '
            'pretrained to a file, or to False for random weights '
            '(pretrained=False).'
        )
    return found


def load_clip_weights(
    pretrained: str, arch: str | Mapping[str, Any]
) -> CLIPWeights:
    """Load an open_clip tag of ``arch`` or a file, on the CPU."""
    name = None
    if isinstance(arch, str) and not is_model_folder(arch):
        name = arch.replace('/', '-')
    config = get_pretrained_cfg(name, pretrained) if name else {}
    path = pretrained
    if config:
        place, _, file = config['hf_hub'].rpartition('/')
        names = (file,) if file else WEIGHTS_OF_HUB
        try:
            path = fetch_from_hub(place, names)
        except (OSError, RuntimeError, ValueError) as err:
            raise DownloadError(
                f"The weights '{pretrained}' of {name} are not in the Hugging "
                f'Face cache and could not be downloaded: {err}. Download '
                f'{names[0]} of https://huggingface.co/{place} by other means '
                'and set pretrained to its path.',
                setting=pretrained,
                instead=f'/path/to/{names[0]}',
            ) from err
    elif not osp.isfile(path):
        tags = list_pretrained_tags_by_model(name) if name else []
        raise FileNotFoundError(
            f"pretrained='{pretrained}' is neither a file nor one of "
            f"open_clip's tags for {name or 'a custom architecture'} "
            f'({tags or "none"}). Set one of these or a path.'
        )
    tensors = read_state_dict(path)
    is_openai = (
        pretrained == 'openai'
        or is_torchscript_archive(path)
        or all(size in tensors for size in OPENAI_SIZES)
    )
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in OPENAI_SIZES and name.rpartition('.')[2] != CAUSAL_MASK
    }
    return CLIPWeights(kept, path, is_openai)


# -- loading ----------------------------------------------------------------


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read a state dict from a PyTorch, TorchScript or safetensors file.

    Never executes code of the file. The state dict may be nested under one of
    :data:`WRAPPINGS` and its names may start with ``'module.'``.
    """
    content: Any
    if path.endswith('.safetensors'):
        try:
            content = load_file(path)
        except SafetensorError as err:
            raise ValueError(
                f"'{path}' cannot be read as safetensors: {err}. Download the "
                'file again.'
            ) from err
    elif is_torchscript_archive(path):
        content = read_torchscript_tensors(path)
    else:
        content = load_checkpoint_file(path)
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(
            content.get(key), Mapping
        ):
            content = content[key]
    found = f'holds a {type(content).__name__}'
    if isinstance(content, Mapping) and content:
        wrong = [k for k, v in content.items() if not isinstance(v, Tensor)]
        if not wrong:
            return {k.removeprefix('module.'): v for k, v in content.items()}
        found = f'{name_some(wrong)} are not tensors'
    raise ValueError(
        f"'{path}' is not a state dict of tensors, plain or under one of "
        f'{WRAPPINGS}: {found}. Use a file with the weights only.'
    )


STORAGE_DTYPES = {
    f'{kind}Storage': dtype
    for kind, dtype in dict(
        Float=torch.float32, Half=torch.float16, BFloat16=torch.bfloat16,
        Double=torch.float64, Long=torch.int64, Int=torch.int32,
        Short=torch.int16, Char=torch.int8, Byte=torch.uint8, Bool=torch.bool,
    ).items()
}  # fmt: skip


class _Inert:
    """Stand-in for any object of an archive; keeps only its state."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Ignore an item of a typed list."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore an entry of a typed dict."""


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler of tensors; every other global becomes :class:`_Inert`."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}
        super().__init__(archive.open(f'{root}/data.pkl'))

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in without importing anything."""
        if module == 'torch._utils' and name == '_rebuild_tensor_v2':
            return self._rebuild_tensor
        if module == 'torch' and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if module == 'collections' and name == 'OrderedDict':
            return OrderedDict
        if module == 'torch.jit._pickle' and name == 'restore_type_tag':
            return lambda value, type_name: value
        return _Inert

    def persistent_load(self, pid: Any) -> Tensor:
        """Load a storage as a flat tensor."""
        _, dtype, key, *_ = pid
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f'storage {key} of an unknown type')
        if key not in self._storages:
            record = self._archive.read(f'{self._root}/data/{key}')
            self._storages[key] = (
                torch.frombuffer(bytearray(record), dtype=dtype)
                if record
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]

    @staticmethod
    def _rebuild_tensor(
        storage: Tensor,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: Any,
    ) -> Tensor:
        return storage.as_strided(size, stride, offset).clone()


def is_torchscript_archive(path: str) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            name.endswith('/constants.pkl') for name in archive.namelist()
        )


def read_torchscript_tensors(path: str) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive such as OpenAI's CLIP.

    ``torch.jit.load`` would compile the archive's code and run its
    ``__setstate__`` methods. This reads it as a zip file with a pickle and
    raw storages instead, and replaces all globals of the pickle by inert
    stand-ins, so a malicious file cannot run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(
                name.rsplit('/', 1)[0]
                for name in archive.namelist()
                if name.endswith('/constants.pkl')
            )
            module = _TensorUnpickler(archive, root).load()
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        StopIteration,
        TypeError,
        ValueError,
    ) as err:
        raise ValueError(
            f"'{path}' looks like a TorchScript archive, but its tensors "
            f'cannot be read: {err}. Download the file again, or save its '
            'state dict with torch.save and use that file.'
        ) from err
    tensors: dict[str, Tensor] = {}
    _collect(module, '', tensors, set())
    return tensors


def _collect(
    node: Any, prefix: str, tensors: dict[str, Tensor], path: set[int]
) -> None:
    """Collect tensors from the attributes of modules, recursively."""
    if not isinstance(node, _Inert) or not isinstance(node.state, dict):
        return
    if id(node) in path:
        return
    path = path | {id(node)}
    for name, value in node.state.items():
        if isinstance(value, Tensor):
            tensors[f'{prefix}{name}'] = value
        else:
            _collect(value, f'{prefix}{name}.', tensors, path)


# -- fitting to a tower -----------------------------------------------------


def name_misfits(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    optional: Collection[str] = (),
) -> str:
    """Describe missing, unexpected and misshapen tensors; '' if none."""
    given = {*found, *optional}
    problems = {
        'missing': [k for k in expected if k not in given],
        'unexpected': [k for k in found if k not in expected],
        'of another shape (file, model)': [
            f'{k} {tuple(found[k].shape)}, {tuple(value.shape)}'
            for k, value in expected.items()
            if k in found and found[k].shape != value.shape
        ],
    }
    return '; '.join(
        f'{len(names)} {kind}: {name_some(names)}'
        for kind, names in problems.items()
        if names
    )


def select_tower(weights: CLIPWeights, side: str) -> dict[str, Tensor]:
    """Tensors of the ``'vision'`` or ``'text'`` tower, without prefix."""
    names = weights.tensors
    prefix = 'visual.' if side == 'vision' else 'text.'
    found = {
        name[len(prefix) :]: tensor
        for name, tensor in names.items()
        if name.startswith(prefix)
    }
    if side == 'text' and not found:
        found = {
            name: tensor
            for name, tensor in names.items()
            if name.partition('.')[0] in TEXT_PARTS
        }
    if found:
        return found
    if any(name.startswith(HUGGING_FACE_PARTS) for name in names):
        mend = (
            'These are the names of a Hugging Face CLIPModel; use '
            "OpenAI's or open_clip's file of the same model instead."
        )
    elif any('clip.visual.' in name for name in names):
        mend = (
            'This is a checkpoint of a released method, not of CLIP; '
            'convert it with tools/model_converters/eaglenet_release.py or '
            'baseline_release.py and set load_from to the result.'
        )
    elif any('_encoder.tower.' in name for name in names):
        mend = 'This is an eaglenet_mm checkpoint; set load_from to it.'
    else:
        mend = 'Use the weights of a complete CLIP model.'
    raise ValueError(
        f"'{weights.path}' has no weights of the {side} tower; its names are "
        f'{name_some(sorted(names))}. {mend}'
    )


def load_tower(
    tower: VisionTransformer | TextTransformer,
    weights: CLIPWeights,
    side: str,
    *,
    quick_gelu: bool,
    resize_positions: bool = False,
) -> int:
    """Load a tower, all tensors or none; return their number.

    As in the release, a text position table that is longer than the tower's
    is cut, not interpolated.
    """
    tensors = select_tower(weights, side)
    expected = tower.state_dict()
    mend = 'Use the arch that the file was saved from.'
    if TABLE in tensors and TABLE in expected:
        if side == 'text':
            tensors[TABLE] = tensors[TABLE][: len(expected[TABLE])]
        if resize_positions:
            tensors[TABLE] = fit_positions(tower, tensors[TABLE])
        mend = describe_misfit(tower, tensors[TABLE]) or mend
    misfits = name_misfits(tensors, expected)
    if misfits:
        raise ValueError(
            f"'{weights.path}' does not fit the {side} tower; {misfits}. "
            f'{mend}'
        )
    if weights.is_openai:
        _check_openai(tower, weights.path, quick_gelu)
    tower.load_state_dict(tensors)
    return len(tensors)


def _check_openai(tower: Any, path: str, quick_gelu: bool) -> None:
    """Check properties of OpenAI's models that shapes do not show."""
    if not quick_gelu:
        raise ValueError(
            f"'{path}' holds OpenAI's weights, which need QuickGELU, but the "
            "arch has quick_gelu=False. Use the name ending in '-quickgelu', "
            'or set quick_gelu=True in the dict.'
        )
    if not hasattr(tower, 'transformer'):  # a ResNet
        return
    width = tower.transformer.resblocks[0].attn.head_dim
    if width != OPENAI_HEAD_WIDTH:
        raise ValueError(
            f"'{path}' holds OpenAI's weights, whose heads are 64 wide, but "
            f'the arch has heads of width {width}. Set head_width=64 '
            '(vision) or heads=width // 64 (text).'
        )


# -- resizing position embeddings -------------------------------------------


def fit_positions(tower: nn.Module, table: Tensor) -> Tensor:
    """Resize position embeddings ``(rows, C)`` to those of a tower."""
    expected = getattr(tower, TABLE)
    if table.shape == expected.shape:
        return table
    if table.ndim != 2 or table.shape[1] != expected.shape[1]:
        raise ValueError(
            f'Position embeddings can be resized from (rows, '
            f'{expected.shape[1]}), the width of the tower, but got '
            f'{tuple(table.shape)}. Use the arch that the file was saved from.'
        )
    if isinstance(tower, VisionTransformer):
        return resize_grid(table, tower.grid_size)
    if len(table) > len(expected):
        return table[: len(expected)]
    return stretch_rows(table, len(expected))


def resize_grid(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate the position embeddings of patches, as open_clip does.

    Bicubic, with antialiasing when downsampling: from ``(1 + n * n, C)``,
    class token and square grid, to ``(1 + rows * columns, C)``. The row of
    the class token stays.
    """
    side = math.isqrt(max(0, len(table) - 1))
    if side < 1 or side * side + 1 != len(table):
        raise ValueError(
            'Positions can be resized from a square grid and a class token, '
            f'1 + n * n rows, but got {len(table)} rows. Use weights for '
            'square images.'
        )
    grid = table[1:].float().unflatten(0, (side, side)).permute(2, 0, 1)
    resized = F.interpolate(
        grid.unsqueeze(0), size, mode='bicubic', antialias=True
    )  # (1, C, rows, columns)
    rows = resized[0].flatten(1).T.to(table.dtype)
    return torch.cat([table[:1], rows])


def stretch_rows(table: Tensor, rows: int) -> Tensor:
    """Stretch text positions ``(old, C)`` to more rows, as Long-CLIP does.

    The first 20 rows are kept. The others are interpolated linearly, at
    distances of ``(old - 20) / (rows - 20)``, and extrapolated beyond the
    last row. Tables of fewer than 22 rows keep the share 20 / 77 of them.
    """
    old = len(table)
    if old < 3:
        raise ValueError(
            f'Positions can be stretched from at least 3 rows, but got {old}. '
            'Use weights with a longer table.'
        )
    kept = WELL_TRAINED_ROWS
    if old < kept + 2:
        kept = old * WELL_TRAINED_ROWS // ROWS_OF_CLIP
    steps = torch.arange(rows - kept, dtype=torch.float64)
    places = kept + steps * ((old - kept) / (rows - kept))
    before = places.long().clamp(max=old - 2)
    share = (places - before).unsqueeze(1)  # above 1 beyond the last row
    values = table.to('cpu', torch.float64)
    rest = values[before] * (1 - share) + values[before + 1] * share
    return torch.cat([table[:kept], rest.to(table)])


def describe_misfit(tower: nn.Module, table: Tensor) -> str | None:
    """Error message, with the options to change, if rows do not match."""
    expected = getattr(tower, TABLE)
    if (
        table.ndim != 2
        or table.shape == expected.shape
        or table.shape[1] != expected.shape[1]
    ):
        return None
    have, need = len(table), len(expected)
    if isinstance(tower, VisionTransformer):
        height, width = tower.image_size
        rows, columns = tower.grid_size
        return (
            f'{TABLE} has {have} rows, but images of {height} x {width} '
            f'pixels need {need}, {rows} x {columns} patches and the class '
            'token. Set image_size to that of the weights, or set '
            'resize_positions=True in the encoder to interpolate.'
        )
    return (
        f'{TABLE} has {have} rows, but max_words={need} needs {need}. Set '
        f'max_words={have} in the encoder and in TokenizeCaptions, or set '
        'resize_positions=True in the encoder to '
        f'{"stretch" if have < need else "cut"} the table.'
    )
