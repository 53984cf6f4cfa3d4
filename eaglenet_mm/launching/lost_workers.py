"""Videos that crashed a loader worker."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import Runner

from eaglenet_mm.datasets.shared_records import recording_datasets


@contextmanager
def name_lost_workers(runner: Runner) -> Iterator[None]:
    """Add the video to the error of a loader whose worker died.

    A worker that a decoder crashes, or that the system kills for its memory,
    cannot report what it was reading; torch names only its process.
    """
    try:
        yield
    except RuntimeError as err:
        match = re.match(
            r'DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)', str(err)
        )
        if match is None:
            raise
        pids = [int(pid) for pid in match[1].split(',') if pid.strip()]
        videos = [
            video
            for kind in ('train', 'val', 'test')
            for video in _videos_of(getattr(runner, f'_{kind}_loop'), pids)
        ]
        if not videos:
            raise
        raise RuntimeError(
            f'{err} It was reading: {"; ".join(videos)}. Check the file with '
            'tools/check_videos.py, and leave it out of the annotation if it '
            'is at fault; if memory ran out, lower num_workers.'
        ) from err


def _videos_of(loop: Any, pids: list[int]) -> Iterator[str]:
    """Name the videos that these processes were reading."""
    # a loop that was never built is still a config
    loader = getattr(loop, 'dataloader', None)
    if loader is None:
        return
    for dataset in recording_datasets(loader.dataset):
        for index in dataset.current_items.of_processes(pids):
            item = dataset.get_data_info(index)
            yield f"'{item['video_id']}' ({item['video']})"
