"""Building of a frame cache from all videos of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lmdb

from eaglenet_mm.datasets.frame_cache.frame_cache import (
    FrameCacheWriter,
    digest_file,
    fixed_transforms,
    frame_recipe,
    item_key,
)
from eaglenet_mm.datasets.isolated_workers import run_isolated
from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.datasets.text_video_dataset import TextVideoDataset
from eaglenet_mm.datasets.transforms.open_video import closed_on_error
from eaglenet_mm.datasets.video_readers import (
    VideoReadError,
    reading_progress,
)
from eaglenet_mm.utils.progress import Progress


@dataclass
class CacheReport:
    """Result of building a frame cache.

    Args:
        folder (Path): Folder of the cached frames.
        num_written (int): Number of items decoded and written.
        num_kept (int): Number of valid items that were already there.
        num_renewed (int): How many of the written items replaced damaged or
            outdated ones.
        failed (dict[str, str]): Errors by video id.
        num_bytes (int): Size of all frames of the dataset in bytes.

    Example:
        >>> CacheReport(Path('frame_cache/5c1e0a9b'), num_written=3).failed
        {}
    """

    folder: Path
    num_written: int = 0
    num_kept: int = 0
    num_renewed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    num_bytes: int = 0


def build_frame_cache(
    dataset: TextVideoDataset,
    root: str | Path,
    *,
    num_workers: int = 2,
    time_limit: float = 120,
) -> CacheReport:
    """Decode every video of a dataset and store the frames.

    Existing items are verified, including their checksums, and kept, so an
    interrupted run continues where it stopped.

    Args:
        dataset (TextVideoDataset): The videos and the pipeline.
        root (str | Path): Folder of the cache; created if missing.
        num_workers (int): Number of decoding processes. Default: 2.
        time_limit (float): Seconds without progress after which a video
            counts as unreadable. Default: 120.

    Returns:
        CacheReport: Counts, and the unreadable videos.

    Raises:
        OSError: If frames cannot be written, for example because the disk is
            full; earlier frames remain valid.
        RuntimeError: If another process is writing to the cache.
        ValueError: If the pipeline does not start with decoding frames.
    """
    transforms = dataset.pipeline.transforms
    with FrameCacheWriter(root, frame_recipe(transforms)) as writer:
        report = CacheReport(writer.folder)
        items, renewed = _to_decode(dataset, writer, report)
        progress = Progress('videos', len(items))
        for outcome in run_isolated(
            partial(_decode, transforms=fixed_transforms(transforms)),
            items,
            num_workers=num_workers,
            time_limit=time_limit,
            progress=reading_progress,
        ):
            item = items[outcome.index]
            key = item_key(item, dataset.data_root)
            if outcome.kind != 'done':
                report.failed[item['video_id']] = (
                    f'{item["video"]}: {outcome.detail} while decoding.'
                )
            elif isinstance(outcome.value, str):
                report.failed[item['video_id']] = outcome.value
            else:
                frames, about = outcome.value
                writer.add(key, frames, about)
                report.num_written += 1
                report.num_renewed += key in renewed
                report.num_bytes += frames.nbytes
            progress.update(1)
        progress.close()
    return report


def _to_decode(
    dataset: TextVideoDataset, writer: FrameCacheWriter, report: CacheReport
) -> tuple[list[dict[str, Any]], set[str]]:
    """List the items without valid frames, each file once."""
    items: dict[str, dict[str, Any]] = {}
    renewed: set[str] = set()
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        items.setdefault(item_key(item, dataset.data_root), item)
    for key, item in list(items.items()):
        try:
            found = writer.read(key)
        except (ValueError, OSError, lmdb.Error):
            renewed.add(key)
            continue
        if found is None:
            continue
        entry, frames = found
        if not entry.is_current(item['video']):
            renewed.add(key)
            continue
        report.num_kept += 1
        report.num_bytes += frames.nbytes
        del items[key]
    return list(items.values()), renewed


def _decode(
    item: dict[str, Any], transforms: Sequence[Callable]
) -> tuple[Any, dict[str, Any]] | str:
    """Decode the frames of an item, or return an error message."""
    try:
        path = Path(item['video'])
        before = identify(item['video'])
        with closed_on_error(item):
            for transform in transforms:
                item = transform(item)
        digest = digest_file(path)
        if before != identify(item['video']):
            return f'{path}: the file changed while it was read.'
        return item['frames'], dict(
            frame_indices=[int(index) for index in item['frame_indices']],
            fps=str(item['fps']),
            num_frames_reported=int(item['num_frames_reported']),
            size=before[0],
            changed=before[1],
            digest=digest,
        )
    except (OSError, VideoReadError) as err:
        return str(err)
