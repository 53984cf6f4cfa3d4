"""Generation of the story set: MP4 files, annotations and a stamp."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eaglenet_mm.datasets.annotation import write_annotation
from eaglenet_mm.datasets.story.content import (
    STORY_VERSION,
    Caption,
    Scene,
    Story,
    find_ambiguous,
    make_captions,
    make_stories,
    mean_of_scenes_ceiling,
    order_blind_ceiling,
    split_scenes,
)
from eaglenet_mm.datasets.story.drawing import (
    VIDEO_FPS,
    draw_lengths,
    render_story,
)
from eaglenet_mm.utils.progress import Progress

#: Videos of each split. Val and test show no scene twice.
NUM_VIDEOS = {'train': 2160, 'val': 60, 'test': 180}
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


@dataclass(frozen=True)
class _Item:
    """A video to write, with all that its record says."""

    video_id: str
    story: Story
    captions: tuple[Caption, ...]
    lengths: tuple[int, ...]
    seed: int

    @property
    def video(self) -> str:
        """Path of the file below ``videos``: a folder for each split."""
        return f'{self.video_id.split("-")[0]}/{self.video_id}.mp4'


def write_story_dataset(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int = 2,
) -> bool:
    """Generate the story set, unless it exists already.

    Writes ``train.json``, ``val.json`` and ``test.json``, the files of
    ``videos/SPLIT/`` and a stamp. All are written to a temporary folder that
    replaces ``out`` when complete, so an interrupted run does not touch
    ``out``.

    A record has the ``moments`` of its captions: the seconds in which what
    they tell is shown. A third of the videos has a variable frame rate.

    The headers of val and test state text-to-video bounds in percent:
    ``chance_R1``, ``chance_R5``, ``chance_R10`` and, in the same form,
    ``order_blind_ceiling_R1`` and ``mean_of_scenes_ceiling_R1``.

    Args:
        out (str or PathLike): Output folder, for example ``data/story``.
        seed (int): Random seed of split, videos and captions. Default: 0.
        limit (int, optional): Videos of each split to keep, the first ones.
            Default: None, all of ``NUM_VIDEOS``.
        workers (int): Number of rendering processes. Default: 2.

    Returns:
        bool: True if the set was generated, False if ``out`` already has it,
        complete and with these options.

    Raises:
        FileExistsError: If ``out`` contains anything but story data.
        ValueError: If an option is out of range.
        RuntimeError: If PyAV cannot write H.264.
    """
    for name, value in dict(limit=limit, workers=workers).items():
        if value is not None and value < 1:
            raise ValueError(
                f"'{name}' must be at least 1, but got {value}. Leave it out "
                'for the default.'
            )
    out = Path(out).absolute()
    options = dict(
        version=STORY_VERSION, code=_code_hash(), seed=seed, limit=limit
    )
    if is_complete(out, options):
        return False
    _refuse_foreign_folder(out)
    partial = out.with_name(f'.{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for split in NUM_VIDEOS:
        (partial / 'videos' / split).mkdir(parents=True)
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
    """Whether a folder contains the complete story set of these options.

    Compares the sizes of videos and the content of annotations.
    """
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text(encoding='utf-8'))
        return stamp['options'] == options and stamp['files'] == (
            _list_files(folder)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    times: Sequence[int] | None = None,
) -> None:
    """Write RGB frames (N, H, W, 3) as H.264 MP4 with intra frames only.

    Args:
        path (Path): Output file.
        frames (NDArray[np.uint8]): The frames.
        times (Sequence[int], optional): Display time of each frame in ticks
            of 1/8 s, increasing. Default: None, one frame a tick.

    Raises:
        ValueError: If a size is odd.
        RuntimeError: If PyAV has no libx264.
    """
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
        stream.codec_context.time_base = Fraction(1, VIDEO_FPS)
        for time, pixels in zip(
            times or range(len(frames)), frames, strict=True
        ):
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = time, Fraction(1, VIDEO_FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _fill(folder: Path, options: dict[str, Any], workers: int) -> None:
    """Write the annotations, then the videos."""
    tasks = []
    seed = options['seed']
    for split, scenes in split_scenes(seed).items():
        items = _make_items(split, scenes, seed)[: options['limit']]
        write_annotation(
            folder / f'{split}.json',
            _header(split, items, options),
            [_record(item) for item in items],
        )
        tasks += [(folder, item) for item in items]
    progress = Progress('story videos', len(tasks))
    if workers == 1:
        for task in tasks:
            _draw(task)
            progress.update(1)
    else:
        with multiprocessing.Pool(workers) as pool:
            for _ in pool.imap_unordered(_draw, tasks, chunksize=16):
                progress.update(1)
    progress.close()


def _make_items(split: str, scenes: Sequence[Scene], seed: int) -> list[_Item]:
    """Stories, captions and lengths of the videos of a split."""
    rng = _random(seed, split, 1)
    while True:
        items = []
        stories = make_stories(scenes, NUM_VIDEOS[split], rng)
        for number, story in enumerate(stories):
            captions = tuple(make_captions(story, rng))
            lengths = draw_lengths(story, rng)
            name = f'{split}-{number:04d}'
            items.append(_Item(name, story, captions, lengths, seed))
        # Two scenes in order, told without backgrounds, may occur twice.
        if split == 'train' or not find_ambiguous(stories, _queries(items)):
            return items


def _queries(items: Sequence[_Item]) -> list[tuple[int, Caption]]:
    return [
        (place, caption)
        for place, item in enumerate(items)
        for caption in item.captions
    ]


def _header(
    split: str, items: Sequence[_Item], options: dict[str, Any]
) -> dict[str, Any]:
    """Build an annotation header; galleries state bounds."""
    header = dict(
        dataset='story',
        split=split,
        protocol='unseen scenes' if split != 'train' else 'training',
        version=options['version'],
        seed=options['seed'],
    )
    if split == 'train':
        return header
    stories, queries = [item.story for item in items], _queries(items)
    bounds: dict[str, float] = {}
    for top_k in (1, 5, 10):
        bounds[f'chance_R{top_k}'] = 100 * min(1.0, top_k / len(items))
        for ceiling in (order_blind_ceiling, mean_of_scenes_ceiling):
            bounds[f'{ceiling.__name__}_R{top_k}'] = ceiling(
                stories, queries, top_k
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
        [seed, STORY_VERSION, zlib.crc32(video_id.encode()), use]
    )


def _record(item: _Item) -> dict[str, Any]:
    ends = [0, *accumulate(item.lengths)]
    moments = [
        [[ends[told.first] / VIDEO_FPS, ends[told.last + 1] / VIDEO_FPS]]
        for told in item.captions
    ]
    return dict(
        video_id=item.video_id,
        video=item.video,
        captions=[told.text for told in item.captions],
        moments=moments,
    )


def _draw(task: tuple[Path, _Item]) -> None:
    """Render and write a video; every third has a variable frame rate."""
    folder, item = task
    rng = _random(item.seed, item.video_id, 0)
    frames = render_story(item.story, item.lengths, rng)
    times = np.arange(len(frames))
    if rng.random() < 1 / 3:
        # leave out a quarter of the frames, but none that starts a scene and
        # not the last: scenes begin and end when the record says so
        kept = {0, *accumulate(item.lengths), len(frames) - 1}
        inner = [time for time in times if time not in kept]
        gone = rng.permutation(inner)[: len(frames) // 4]
        times = np.delete(times, gone)
    write_video(folder / 'videos' / item.video, frames[times], times.tolist())


def _list_files(folder: Path) -> dict[str, int | str]:
    """Size of every video, SHA-256 of every annotation."""
    files: dict[str, int | str] = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted((folder / 'videos').rglob('*.mp4'))
    }
    for split in NUM_VIDEOS:
        content = (folder / f'{split}.json').read_bytes()
        files[f'{split}.json'] = hashlib.sha256(content).hexdigest()
    return files


def _refuse_foreign_folder(out: Path) -> None:
    """Refuse to replace anything but story data."""
    ours = not out.exists() or (
        out.is_dir()
        and ((out / STAMP_NAME).is_file() or not any(out.iterdir()))
    )
    if not ours:
        raise FileExistsError(
            f"Expected '{out}' to be absent, empty or an earlier story "
            f"set, but it contains files and no '{STAMP_NAME}'. Name "
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
