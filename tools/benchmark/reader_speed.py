"""Frames a second that each installed backend delivers.

    python tools/benchmark/reader_speed.py

Makes a clip of each kind and reads it through ``open_video``, opening and
checks included, as a data set does: 12 frames spread over the clip, and all
frames in order. All backends run in turn, with one thread, on one core. A
backend that refuses a file, because it may deliver wrong frames of it, has no
figure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from harness import interleaved_medians, print_table, reader_parser, start
from indexing_time import KINDS, encode_piece

from eaglenet_mm.datasets.video_readers import VideoReadError, open_video

#: Package of each backend.
BACKENDS = {
    'pyav': 'av',
    'torchcodec': 'torchcodec',
    'decord': 'decord',
    'opencv': 'cv2',
}


def read_spread(path: str, backend: str, count: int) -> int:
    """Read ``count`` frames spread over a clip; returns how many."""
    with open_video(path, backend=backend) as reader:
        last = reader.num_frames - 1
        indices = np.linspace(0, last, count).round().astype(int).tolist()
        return len(reader.get_batch(indices))


def read_all(path: str, backend: str) -> int:
    """Read all frames of a clip in order; returns how many."""
    with open_video(path, backend=backend) as reader:
        return sum(1 for _ in reader.stream(range(reader.num_frames)))


def reads(path: str, backend: str) -> bool:
    """Whether a backend is there and does not refuse a file."""
    try:
        read_spread(path, backend, 2)
    except (ImportError, VideoReadError) as err:
        print(f'{Path(path).name}, {backend}: {str(err)[:160]}', flush=True)
        return False
    return True


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = reader_parser(__doc__)
    add = parser.add_argument
    add('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    add('--seconds', type=int, default=20, help='length of a clip')
    add('--size', type=int, nargs=2, default=[320, 240], help='of a picture')
    add('--frames', type=int, default=12, help='frames that are spread')
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    bench = start(args)
    installed = [x for x, package in BACKENDS.items() if find_spec(package)]
    cases = []
    with tempfile.TemporaryDirectory() as name:
        for kind in args.kinds:
            ending = KINDS[kind][1]
            path = str(Path(name) / f'{kind}{ending}')
            encode_piece(kind, Path(path), args.seconds, tuple(args.size))
            count = {'spread': args.frames, 'in order': read_all(path, 'pyav')}
            runs: dict[str, Callable] = {}
            for backend in filter(partial(reads, path), installed):
                runs[f'{backend} spread'] = partial(
                    read_spread, path, backend, args.frames
                )
                runs[f'{backend} in order'] = partial(read_all, path, backend)
            times = interleaved_medians(runs, args.repeats)
            for way, frames in count.items():
                row: dict[str, object] = dict(kind=kind, way=way)
                for backend in installed:
                    time = times.get(f'{backend} {way}')
                    row[backend] = time and frames / time
                cases.append(row)
    width, height = args.size
    print_table(
        f'Frames a second of clips of {args.seconds} s and {width} x {height}'
        f' pixels, {args.frames} frames spread and all in order',
        cases,
    )
    bench.write(cases=cases)


if __name__ == '__main__':
    main()
