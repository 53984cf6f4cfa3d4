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

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from clips import dataset_options, make_clips
from harness import (
    interleaved_medians,
    print_table,
    reader_parser,
    start,
    status,
)
from mmengine.dataset import pseudo_collate
from reference_loading import ReleaseLoading, StockLoading

from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.frame_cache_building import build_frame_cache
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor


class OwnLoading:
    """Read videos by this project's data set and preprocessor."""

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
        options = dataset_options(folder, paths, num_frames, size, backend)
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


def load_all(load: Callable[[str], torch.Tensor], paths: list[str]) -> None:
    """Load every video once."""
    for path in paths:
        load(path)


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
    parser = reader_parser(__doc__)
    add = parser.add_argument
    add('--videos', type=Path, help='folder; default: clips are made')
    add('--clips', type=int, default=8, help='clips to make')
    add('--frames', type=int, default=12, help='most frames of a video')
    add('--size', type=int, default=224, help='side of a frame in pixels')
    add('--backend', default='auto', help='reader of this project')
    add('--reads', type=int, default=0, help='also watch memory over N reads')
    args = parser.parse_args()
    bench = start(args)
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
        times = interleaved_medians(
            {
                name: partial(load_all, load, paths)
                for name, load in ways.items()
            },
            args.repeats,
        )
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
    bench.write(
        rows=rows,
        largest_difference=difference,
        cache_bytes=cached.bytes_of_cache,
        memory=memory,
    )


if __name__ == '__main__':
    main()
