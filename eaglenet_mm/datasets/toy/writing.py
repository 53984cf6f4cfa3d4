"""Generation of the toy dataset: MP4 files, annotations and a stamp."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.utils import track_parallel_progress, track_progress
from numpy.typing import NDArray

from eaglenet_mm.datasets.annotation import write_annotation
from eaglenet_mm.datasets.toy.content import (
    TOY_VERSION,
    ToyCombination,
    make_captions,
    order_blind_ceiling,
    split_combinations,
)
from eaglenet_mm.datasets.toy.drawing import VIDEO_FPS, render_video

#: Written last; marks a folder as complete.
STAMP_NAME = 'stamp.json'
# Intra frames of constant quality: artifacts of inter-frame prediction would
# reveal the frame order.
_CODEC_OPTIONS: dict[str, Any] = {
    'preset': 'veryfast',
    'tune': 'fastdecode',
    'qp': '24',
    'g': '1',
    'bf': '0',
    'x264-params': 'aq-mode=0:mbtree=0:scenecut=0',
}


def write_toy_dataset(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    renderings: int = 6,
    num_captions: int = 4,
    limit: int | None = None,
    workers: int = 2,
) -> bool:
    """Generate the toy dataset, unless it exists already.

    Writes ``train.json``, ``val.json`` and ``test.json``, the files of
    ``videos/`` and a stamp. All are written to a temporary folder that
    replaces ``out`` when complete, so an interrupted run does not touch
    ``out``.

    The headers of val and test state text-to-video baselines in percent:
    ``chance_R1``, ``chance_R5``, ``chance_R10`` and, for the best order-blind
    model, ``order_blind_ceiling_R1`` and so on.

    Args:
        out (str or PathLike): Output folder, for example ``data/toy``.
        seed (int): Random seed of split, videos and captions. Default: 0.
        renderings (int): Training videos per combination. Val and test have
            one, so that a caption matches one video only. Default: 6.
        num_captions (int): Captions per video, 1 to 4. Default: 4.
        limit (int, optional): Number of combinations per split, for tests.
            Default: None, all.
        workers (int): Number of rendering processes. Default: 2.

    Returns:
        bool: True if the dataset was generated, False if ``out`` already has
        it, complete and with these options.

    Raises:
        FileExistsError: If ``out`` contains anything but toy data.
        ValueError: If an option is out of range.
        RuntimeError: If PyAV cannot write H.264.
    """
    least = dict(renderings=renderings, limit=limit, workers=workers)
    for name, value in least.items():
        if value is not None and value < 1:
            raise ValueError(
                f"'{name}' must be at least 1, but got {value}. Leave it out "
                'for the default.'
            )
    out = Path(out).absolute()
    options = dict(
        version=TOY_VERSION,
        code=_code_hash(),
        seed=seed,
        renderings=renderings,
        num_captions=num_captions,
        limit=limit,
    )
    if is_complete(out, options):
        return False
    _refuse_foreign_folder(out)
    partial = out.with_name(f'.{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    (partial / 'videos').mkdir(parents=True)
    try:
        _fill(partial, options, workers)
        stamp = dict(options=options, files=_list_files(partial))
        (partial / STAMP_NAME).write_text(
            json.dumps(stamp, indent=1) + '\n', encoding='utf-8'
        )
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def is_complete(folder: Path, options: dict[str, Any]) -> bool:
    """Whether a folder contains the complete toy data of these options.

    Compares the sizes of videos and the content of annotations.
    """
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text(encoding='utf-8'))
        return stamp['options'] == options and stamp['files'] == (
            _list_files(folder)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write RGB frames (N, H, W, 3) as H.264 MP4 with intra frames only."""
    import av

    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            'H.264 with subsampled colour needs even sizes, but got frames of '
            f'{width}x{height} pixels. Crop or pad them by one pixel.'
        )
    with av.open(str(path), 'w') as container:
        try:
            stream = container.add_stream('libx264', rate=VIDEO_FPS)
        except ValueError as err:  # from PyAV: unknown codec
            raise RuntimeError(
                f"Writing '{path}' needs an FFmpeg with libx264, but this "
                'PyAV has none. Install the published wheel: pip install av'
            ) from err
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.options = _CODEC_OPTIONS
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def _fill(folder: Path, options: dict[str, Any], workers: int) -> None:
    """Write the annotations, then the videos."""
    tasks = []
    splits = split_combinations(options['seed'])
    for split, combinations in splits.items():
        gallery = combinations[: options['limit']]
        copies = options['renderings'] if split == 'train' else 1
        items = [
            (f'{combination.name}-{copy}', combination)
            for copy in range(copies)
            for combination in gallery
        ]
        write_annotation(
            folder / f'{split}.json',
            _header(split, gallery, options),
            [_record(*item, options) for item in items],
        )
        tasks += [(folder, *item, options['seed']) for item in items]
    draw: Callable[[Any], None] = _draw
    if workers == 1:
        track_progress(draw, tasks)
    else:
        track_parallel_progress(draw, tasks, workers, chunksize=16)


def _header(
    split: str, gallery: Sequence[ToyCombination], options: dict[str, Any]
) -> dict[str, Any]:
    """Build an annotation header; galleries state trivial baselines."""
    header = dict(
        dataset='toy',
        split=split,
        protocol='unseen combinations' if split != 'train' else 'training',
        version=options['version'],
        seed=options['seed'],
        num_combinations=len(gallery),
    )
    if split == 'train':
        return header
    bounds: dict[str, float] = {}
    for top_k in (1, 5, 10):
        bounds[f'chance_R{top_k}'] = 100 * min(1.0, top_k / len(gallery))
        bounds[f'order_blind_ceiling_R{top_k}'] = order_blind_ceiling(
            gallery, top_k
        )
    return {**header, **bounds}


def _code_hash() -> str:
    """Hash the generator's code, in case its version was not raised."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _random(seed: int, video_id: str, use: int) -> np.random.Generator:
    """An independent random stream per video and use."""
    return np.random.default_rng(
        [seed, TOY_VERSION, zlib.crc32(video_id.encode()), use]
    )


def _record(
    video_id: str, combination: ToyCombination, options: dict[str, Any]
) -> dict[str, Any]:
    rng = _random(options['seed'], video_id, 1)
    captions = make_captions(combination, options['num_captions'], rng)
    return dict(video_id=video_id, video=f'{video_id}.mp4', captions=captions)


def _draw(task: tuple[Path, str, ToyCombination, int]) -> None:
    folder, video_id, combination, seed = task
    frames = render_video(combination, _random(seed, video_id, 0))
    write_video(folder / 'videos' / f'{video_id}.mp4', frames)


def _list_files(folder: Path) -> dict[str, int | str]:
    """Size of every video, SHA-256 of every annotation."""
    files: dict[str, int | str] = {
        f'videos/{path.name}': path.stat().st_size
        for path in sorted((folder / 'videos').iterdir())
    }
    for split in ('train', 'val', 'test'):
        content = (folder / f'{split}.json').read_bytes()
        files[f'{split}.json'] = hashlib.sha256(content).hexdigest()
    return files


def _refuse_foreign_folder(out: Path) -> None:
    """Refuse to replace anything but toy data."""
    ours = not out.exists() or (
        out.is_dir()
        and ((out / STAMP_NAME).is_file() or not any(out.iterdir()))
    )
    if not ours:
        raise FileExistsError(
            f"Expected '{out}' to be absent, empty or an earlier toy "
            f"dataset, but it contains files and no '{STAMP_NAME}'. Name "
            'another folder, or remove this one yourself.'
        )


def _put_in_place(partial: Path, out: Path) -> None:
    """Swap in the new folder; the old one is removed last."""
    old = out.with_name(f'.{out.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
