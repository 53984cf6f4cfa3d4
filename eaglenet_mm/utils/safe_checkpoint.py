"""Checkpoint loading that does not execute what a file contains.

A PyTorch checkpoint is a pickle, and a pickle is a program: its author decides
what runs on the machine that loads it. Here a checkpoint may hold tensors,
containers, numbers, numpy arrays and MMEngine's history buffers; anything else
is refused by name.
"""

import glob
import os
import os.path as osp
import pickle
import re
import zipfile
from typing import Any

import torch
from mmengine.logging import print_log

from eaglenet_mm.utils.downloads import DownloadError, require_server
from eaglenet_mm.utils.safe_globals import allowed_in_checkpoints, real_objects

#: If this environment variable is 1, every checkpoint is read as a plain
#: pickle. The option ``--trust-checkpoint`` sets it.
TRUST_VARIABLE = 'EAGLENET_MM_TRUST_CHECKPOINTS'


class UnsafeCheckpointError(ValueError):
    """A checkpoint that asks for something that could execute code.

    Args:
        path (str): The file.
        name (str): What it asks for, usually ``module.name``.
    """

    def __init__(self, path: str, name: str) -> None:
        super().__init__(
            f'{path} was not read: its pickle asks for {name}, but only '
            'tensors, containers, numbers, numpy arrays and the history '
            'buffers of MMEngine are allowed, because anything else could '
            'run code. If you trust the source of the file, use the option '
            f'--trust-checkpoint or set {TRUST_VARIABLE}=1.'
        )
        self.path = path
        self.name = name


def checkpoints_are_trusted() -> bool:
    """Whether the user asked to read checkpoints as plain pickles."""
    value = os.environ.get(TRUST_VARIABLE, '')
    return value.lower() in ('1', 'true', 'yes')


def load_checkpoint_file(
    path: str | os.PathLike[str],
    map_location: Any = 'cpu',
    trusted: bool = False,
) -> Any:
    """Read a PyTorch checkpoint in the zip or the legacy format.

    Args:
        path (str | PathLike): The file; ``~`` is expanded.
        map_location (Any): As in :func:`torch.load`. Default: ``'cpu'``.
        trusted (bool): Read it as a plain pickle, which can execute code, as
            with ``EAGLENET_MM_TRUST_CHECKPOINTS=1``. Default: False.

    Returns:
        Any: The saved object, usually a dict.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If the file holds objects that are not allowed.
        ValueError: If the file is truncated or not a checkpoint.

    Example:
        >>> import torch
        >>> torch.save({'weight': torch.ones(2)}, '/tmp/two.pth')
        >>> load_checkpoint_file('/tmp/two.pth')
        {'weight': tensor([1., 1.])}
    """
    path = osp.expanduser(os.fspath(path))
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'A checkpoint was expected at {path}, but there is no such '
            'file. Check the path, or list the *.pth files of the work '
            'directory.'
        )
    if trusted or checkpoints_are_trusted():
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        with allowed_in_checkpoints():
            loaded = torch.load(path, map_location, weights_only=True)
        return real_objects(loaded)
    except PermissionError:
        raise
    except Exception as err:
        refused = _refused(path, err)
        if refused is not None:
            raise UnsafeCheckpointError(path, refused) from err
        raise ValueError(
            f'{path} ({osp.getsize(path)} bytes) is no complete PyTorch '
            f'checkpoint: {type(err).__name__}: {_reason(err)}. Copy or '
            'download it again, or take an earlier checkpoint of the same run.'
        ) from err


def _reason(err: Exception) -> str:
    """Torch's message without its advice to load unsafely."""
    message = str(err)
    if 'weights_only' not in message:
        return message
    found = re.search(r'error:\s+(.+)', message)
    return found[1] if found else message.partition('.')[0]


def _refused(path: str, err: Exception) -> str | None:
    """What torch refused in a file, or None if the file is damaged."""
    message = str(err)
    if 'TorchScript' in message:
        return 'a TorchScript program'
    if '.tar' in message:
        return 'files of a tar archive'
    with open(path, 'rb') as file:
        is_pickle = file.read(1) == b'\x80'
    if not isinstance(err, pickle.UnpicklingError) or not (
        is_pickle or zipfile.is_zipfile(path)
    ):
        return None
    operation = re.search(r'Unsupported operand (\d+)', message)
    if operation is not None:
        return (
            f'operation {operation[1]}, which torch.save does not write '
            'unless told to by pickle_protocol (or the file is damaged)'
        )
    found = re.search(r'GLOBAL (\S+)', message)
    if found is None:
        found = re.search(r'error:\s+(.+)', message)
    return found[1] if found else message.splitlines()[0]


def load_checkpoint_for_runner(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint for MMEngine's ``CheckpointLoader``.

    On resuming, the Runner executes ``meta['config']`` as a Python config.
    MMEngine itself has long written ``meta['cfg']``, so the old field is
    dropped.
    """
    checkpoint = load_checkpoint_file(filename, map_location)
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict) and not checkpoints_are_trusted():
        meta.pop('config', None)
    return checkpoint


def find_latest_checkpoint(path: str) -> str | None:
    """Find the latest checkpoint of a work directory, preferably inside it.

    Replaces MMEngine's function. ``last_checkpoint`` holds a full path, which
    points to the original folder after the work directory was copied or
    moved; a file of the same name in the work directory takes precedence.
    """
    note = osp.join(path, 'last_checkpoint')
    if not osp.isfile(note):
        kept = sorted(
            file
            for kind in ('epoch', 'iter')  # best_* lack the training state
            for file in glob.glob(
                osp.join(glob.escape(path), f'{kind}_[0-9]*.pth')
            )
        )
        if kept:
            names = ', '.join(osp.basename(name) for name in kept[:5])
            raise FileNotFoundError(
                f'{path} has no last_checkpoint to resume from, but holds '
                f'{names}, which a new training would overwrite. Give the '
                'file to resume from, --resume CHECKPOINT, or another '
                '--work-dir.'
            )
        print_log(f'{path} has no last_checkpoint to be resumed.', 'current')
        return None
    with open(note, encoding='utf-8') as file:
        named = file.read().strip()
    own = osp.join(path, osp.basename(named.rstrip('/')))
    if osp.exists(own):
        return own
    if '://' in named or osp.exists(named):
        return named
    there = sorted(name for name in os.listdir(path) if name[-4:] == '.pth')
    raise FileNotFoundError(
        f'{note} names {named}, but there is no such file, nor one of that '
        f'name in {path}, which holds {", ".join(there[:5]) or "no *.pth"}. '
        'Give the file to resume from: --resume CHECKPOINT.'
    )


def load_checkpoint_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    **kwargs: Any,
) -> Any:
    """Download a checkpoint once and read it safely.

    Replaces :func:`torch.hub.load_state_dict_from_url`, which reads a plain
    pickle, in MMEngine.
    """
    name = kwargs.get('file_name') or osp.basename(url.split('?')[0])
    model_dir = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(model_dir, name)
    if not osp.isfile(path):
        os.makedirs(model_dir, exist_ok=True)
        match = torch.hub.HASH_REGEX.search(name)
        expected = (
            match.group(1) if match and kwargs.get('check_hash') else None
        )
        try:
            require_server(url)
        except ConnectionError as err:
            raise DownloadError(
                f'{url} could not be downloaded: {err}. Download it by other '
                f'means and put it at {path}.',
                setting=url,
                instead=f'/path/to/{name}',
            ) from err
        torch.hub.download_url_to_file(url, path, expected, progress=progress)
    return load_checkpoint_for_runner(path, map_location)
