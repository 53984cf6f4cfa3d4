"""From video files to normalised frames, beside two other ways.

    python tools/benchmark/video_loading.py --videos FOLDER
    python tools/benchmark/video_loading.py

Counts the frames a second that this project delivers, decoding and from its
frame cache, against the way of the authors' release (OpenCV, a seek for each
second, Pillow frame by frame, float64 batch) and mmaction2's stock pipeline.
All run in turn in one process, which keeps to one core unless ``--cores`` says
otherwise: a loader has workers on all of them. Pixels are compared with the
release's. Without ``--videos`` clips are made, encoded as those of MSR-VTT are
(320 x 240, 30 frames a second, a key frame every 250, 10 to 20 seconds).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common  # noqa: F401  makes the checkout importable; first of all
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from reference_loading import ReleaseLoading, StockLoading
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
from resident_memory import status

from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.datasets.frame_cache import build_frame_cache
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor


class OwnLoading:
    """Read videos by this project's data set and preprocessor.

    Args:
        paths (list[str]): The files.
        folder (Path): Where annotation and cache go.
        num_frames (int): Most frames of a video.
        size (int): Side of a frame in pixels.
        backend (str): Reader.
        cached (bool): Whether frames come from a cache, which is made.
    """

    def __init__(
        self,
        paths: list[str],
        folder: Path,
        num_frames: int,
        size: int,
        *,
        backend: str = 'auto',
        cached: bool = False,
    ) -> None:
        write_annotation(
            folder / 'all.json',
            dict(dataset='benchmark', split='test', protocol='all'),
            [dict(video_id=x, video=x, captions=['-']) for x in paths],
        )
        options: dict[str, Any] = dict(
            ann_file=str(folder / 'all.json'),
            pipeline=[
                dict(type='OpenVideo', backend=backend),
                dict(type='SampleFrames', num_frames=num_frames),
                dict(
                    type='DecodeFrames',
                    resize=dict(type='ResizeCenterCrop', size=size),
                ),
                dict(type='PackRetrievalInputs'),
            ],
        )
        if cached:
            cache = str(folder / 'cache')
            begin = time.perf_counter()
            report = build_frame_cache(TextVideoDataset(**options), cache)
            self.seconds_to_cache = time.perf_counter() - begin
            self.bytes_of_cache = report.num_bytes
            options['frame_cache'] = cache
        self._places = {path: place for place, path in enumerate(paths)}
        self._dataset = TextVideoDataset(**options)
        self._preprocessor = RetrievalDataPreprocessor(num_frames=num_frames)

    def __call__(self, path: str) -> torch.Tensor:
        """Load a video; see :class:`ReleaseLoading`."""
        item = self._dataset[self._places[path]]
        return self._preprocessor(pseudo_collate([item]))['inputs']['pixels']


def make_clips(folder: Path, count: int) -> list[str]:
    """Write clips of moving texture, encoded as a video site does."""
    import av

    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        texture = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        texture = texture.repeat(8, 0).repeat(8, 1)  # (480, 640, 3)
        path = folder / f'clip{number}.mp4'
        with av.open(str(path), 'w') as container:
            stream = container.add_stream('libx264', rate=30)
            stream.width, stream.height = 320, 240
            stream.pix_fmt = 'yuv420p'
            stream.options = {'crf': '23', 'g': '250'}
            for step in range(30 * (10 + number * 10 // max(1, count - 1))):
                shift = (step // 2 % 240, step % 320)
                image = texture[shift[0] :, shift[1] :][:240, :320].copy()
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        paths.append(str(path))
    return paths


def measure(
    ways: dict[str, Callable[[str], torch.Tensor]],
    paths: list[str],
    repeats: int,
) -> dict[str, float]:
    """Time each way on all videos, in turn; median seconds of a pass."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, load in ways.items():
            begin = time.perf_counter()
            for path in paths:
                load(path)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def growth(
    load: Callable[[str], torch.Tensor], paths: list[str], reads: int
) -> dict:
    """Resident memory while videos are read again and again."""
    sizes = []
    for number in range(reads):
        load(paths[number % len(paths)])
        if number % max(1, reads // 4) == reads // 4 - 1:
            sizes.append(round(status('VmRSS') / 2**20, 1))
    return dict(reads=reads, resident_mib=sizes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--videos', type=Path, help='folder; default: clips are made')
    add('--clips', type=int, default=8, help='clips to make')
    add('--frames', type=int, default=12, help='most frames of a video')
    add('--size', type=int, default=224, help='side of a frame in pixels')
    add('--cores', type=int, default=1, help='of the process; 0 for all')
    add('--threads', type=int, default=1, help='of torch')
    add('--repeats', type=int, default=5, help='passes, for the median')
    add('--backend', default='auto', help='reader of this project')
    add('--reads', type=int, default=0, help='also watch memory over N reads')
    add('--json', type=Path, metavar='FILE', help='where to write the result')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    machine = describe_machine(torch.device('cpu'))
    print_machine(machine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = (
            sorted(str(x) for x in args.videos.iterdir() if x.is_file())
            if args.videos
            else make_clips(folder, args.clips)
        )
        options = (paths, folder, args.frames, args.size)
        cached = OwnLoading(*options, backend=args.backend, cached=True)
        ways: dict[str, Callable[[str], torch.Tensor]] = {
            'release': ReleaseLoading(args.frames, args.size),
            'mmaction2': StockLoading(args.frames, args.size),
            'decoding': OwnLoading(*options, backend=args.backend),
            'cache': cached,
        }
        differences, num_frames = [], 0
        for path in paths:
            expected = ways['release'](path)
            num_frames += int(expected.flatten(2).any(-1).sum())
            for way in ('decoding', 'cache'):
                differences.append((ways[way](path) - expected).abs().max())
        times = measure(ways, paths, args.repeats)
        memory = growth(ways['decoding'], paths, args.reads)
    rows = [
        dict(
            way=way,
            seconds=value,
            frames_per_second=num_frames / value,
            to_release=times['release'] / value,
            to_mmaction2=times['mmaction2'] / value,
        )
        for way, value in times.items()
    ]
    print_table(
        f'{len(paths)} videos, {num_frames} frames of {args.size} pixels', rows
    )
    difference = float(max(differences))
    megabytes = cached.bytes_of_cache / 1e6
    print(
        f'\nLargest difference of a pixel to the release: {difference:.1e}. '
        f'The cache took {cached.seconds_to_cache:.1f} s and {megabytes:.0f} '
        'MB.'
    )
    if args.reads:
        print(f'Memory over {args.reads} reads: {memory["resident_mib"]} MiB')
    write_report(
        args,
        machine,
        rows=rows,
        largest_difference=difference,
        cache_bytes=cached.bytes_of_cache,
        memory=memory,
    )


if __name__ == '__main__':
    main()
