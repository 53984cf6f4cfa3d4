"""Writing of the toy data set: mp4 files, annotations and a stamp."""

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

#: Written last: a folder that has it was complete once.
STAMP_NAME = 'stamp.json'
# Every frame is a key frame of one quality. Were they predicted from each
# other, the traces of coding would tell in which order they come.
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
    """Make the toy data set, unless it is there already.

    Writes ``train.json``, ``val.json`` and ``test.json``, the files of
    ``videos/`` and a stamp. All is made in a folder beside ``out`` that takes
    its place when complete, so an interrupted run leaves ``out`` as it was.

    The headers of val and test state what a model can score without skill:
    ``chance_R1``, ``chance_R5``, ``chance_R10`` and, for the best model that
    is blind to the order of the frames, ``order_blind_ceiling_R1`` and so
    on, in percent, text to video.

    Args:
        out (str or PathLike): The folder, for example ``data/toy``.
        seed (int): Seed of split, videos and captions. Default: 0.
        renderings (int): Training videos of one combination; val and test
            have one each, so that a caption fits one video only. Default: 6.
        num_captions (int): Captions of one video, 1 to 4. Default: 4.
        limit (int, optional): Combinations of a split that are made, for
            tests. Default: None, all of them.
        workers (int): Processes that draw videos. Default: 2.

    Returns:
        bool: True if the data were made, False if ``out`` held the data of
        these options, complete.

    Raises:
        FileExistsError: If ``out`` holds something else than toy data.
        ValueError: If an option is out of its range.
        RuntimeError: If PyAV cannot write H.264.
    """
    least = dict(renderings=renderings, limit=limit, workers=workers)
    for name, value in least.items():
        if value is not None and value < 1:
            raise ValueError(
                f"'{name}' must be at least 1, but got {value}. Leave it out "
                'to get the default.'
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
    """Tell whether a folder holds the whole toy data of these options.

    Every file must have its size, annotations their content.
    """
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text(encoding='utf-8'))
        return stamp['options'] == options and stamp['files'] == (
            _list_files(folder)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write RGB frames (N, H, W, 3) as an H.264 mp4 of key frames alone."""
    import av

    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            'H.264 with halved colour needs even sizes, but got frames of '
            f'{width}x{height} pixels. Crop or pad them by one pixel.'
        )
    with av.open(str(path), 'w') as container:
        try:
            stream = container.add_stream('libx264', rate=VIDEO_FPS)
        except ValueError as err:  # of PyAV: the codec is unknown
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
    """Header of an annotation; galleries state what needs no skill."""
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
    """Change when the generator does, even without a new version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _random(seed: int, video_id: str, use: int) -> np.random.Generator:
    """A stream of its own for every video, whoever draws it and when."""
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
    """Never take the place of something that is not toy data."""
    ours = not out.exists() or (
        out.is_dir()
        and ((out / STAMP_NAME).is_file() or not any(out.iterdir()))
    )
    if not ours:
        raise FileExistsError(
            f"Expected '{out}' to be absent, empty or an earlier toy data "
            f"set, but it holds files and no '{STAMP_NAME}'. Name another "
            'folder, or remove this one yourself.'
        )


def _put_in_place(partial: Path, out: Path) -> None:
    """Exchange two folders; the old one is removed last."""
    old = out.with_name(f'.{out.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
