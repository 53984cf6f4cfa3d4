"""Time of reading long videos in segments, over their length.

    python tools/benchmark/indexing_time.py
    python tools/benchmark/indexing_time.py --kinds hevc --lengths 60 120

Makes files of each kind and length and reads them as an index of segments
does, all pipeline steps and thumbnails included, without the model. Beside it,
in the same run and in turn, each is decoded once in order with PyAV, without
converting a frame. Reading is linear if twice the length takes twice the time;
what it adds to decoding is the ratio of the two. A file repeats one encoded
piece, so that making it takes seconds. The process keeps to one core.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from clips import write_clip
from harness import (
    REPOSITORY,
    interleaved_medians,
    print_table,
    reader_parser,
    start,
)
from mmengine.config import Config

from eaglenet_mm.search.moment_reading import MomentReader

#: Encoder, ending and options of each kind.
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    'hevc': (
        'libx265', '.mp4',
        {'preset': 'veryfast', 'x265-params': 'log-level=error'},
    ),
    'h264': ('libx264', '.mp4', {'preset': 'veryfast'}),
    'vp9': ('libvpx-vp9', '.webm', {'deadline': 'realtime', 'cpu-used': '8'}),
    'av1': ('libsvtav1', '.mp4', {'preset': '10', 'crf': '30'}),
    'ts': ('libx264', '.ts', {'preset': 'veryfast'}),
}  # fmt: skip
RATE = 25
_GRAIN = 6  # standard deviation, grey levels


def encode_piece(
    kind: str, path: Path, seconds: int, size: tuple[int, int]
) -> None:
    """Encode some seconds of a kind; grain gives a decoder work to do."""
    codec, _, options = KINDS[kind]
    write_clip(
        path,
        size,
        RATE * seconds,
        codec=codec,
        rate=RATE,
        block=16,
        grain=_GRAIN,
        options=options,
    )


def repeat_piece(piece: Path, path: Path, times: int) -> None:
    """Write the packets of a file several times, behind each other."""
    with av.open(str(path), 'w') as new:
        stream = None
        for number in range(times):
            # opened anew: a packet that was written is gone
            with av.open(str(piece)) as old:
                source = old.streams.video[0]
                # opaque: a decoder such as dav1d is no encoder
                stream = stream or new.add_stream_from_template(
                    source, opaque=True
                )
                packets = [x for x in old.demux(source) if x.size]
                step = Fraction(1, RATE) / source.time_base
                shift = round(number * len(packets) * step)
                for packet in packets:
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    new.mux(packet)


def make_files(
    folder: Path,
    kind: str,
    lengths: list[int],
    piece: int,
    size: tuple[int, int],
) -> dict[int, str]:
    """Make files of one kind."""
    ending = KINDS[kind][1]
    # Matroska and MP4 keep the times of decoding; MPEG-TS is cut from MP4
    encoded = folder / f'{kind}_piece{".mp4" if ending == ".ts" else ending}'
    encode_piece(kind, encoded, piece, size)
    paths = {}
    for length in lengths:
        path = folder / f'{kind}_{length}{ending}'
        repeat_piece(encoded, path, length // piece)
        paths[length] = str(path)
    return paths


def decode_in_order(path: str) -> int:
    """Decode a file with one thread; returns the number of its frames."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def read_segments(reader: MomentReader, path: str) -> tuple[int, str]:
    """Read a file; returns the number of its segments, and what was wrong."""
    count, error = 0, ''
    for _, found, _ in reader.read([path]):
        count += len(found.spans)
        error = error or found.error
    return count, error


def measure(
    path: str, seconds: int, reader: MomentReader, repeats: int
) -> dict[str, Any]:
    """Read and decode a file in turn."""
    frames = decode_in_order(path)
    segments, error = read_segments(reader, path)
    times = interleaved_medians(
        {
            'decoding': lambda: decode_in_order(path),
            'reading': lambda: read_segments(reader, path),
        },
        repeats,
    )
    if error:
        print(f'{path}: {error}', flush=True)
    return dict(
        seconds=seconds,
        frames=frames,
        segments=segments,
        **times,
        to_decoding=times['reading'] / times['decoding'],
    )


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = reader_parser(__doc__, repeats=3)
    add = parser.add_argument
    add('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    add('--lengths', type=int, nargs='+', default=[60, 240, 480])
    add('--piece', type=int, default=20, help='seconds that are repeated')
    add('--size', type=int, nargs=2, default=[640, 360], help='of a picture')
    add('--segment', type=float, default=10, help='seconds of a segment')
    add(
        '--config',
        type=Path,
        default=REPOSITORY / 'configs' / 'eaglenet_msrvtt.py',
        help='whose test pipeline reads',
    )
    add('--workers', type=int, default=0, help='processes that read')
    args = parser.parse_args()
    wrong = [x for x in args.lengths if x <= 0 or x % args.piece]
    if wrong:
        parser.error(
            f'--lengths must be multiples of --piece {args.piece}, but got '
            f'{wrong}.'
        )
    args.lengths = sorted(set(args.lengths))
    return args


def main() -> None:
    """Measure and print."""
    args = parse_args()
    bench = start(args)
    config = Config.fromfile(args.config)
    reader = MomentReader(
        config.test_dataloader.dataset.pipeline,
        segment=args.segment,
        num_workers=args.workers,
        time_limit=0,
    )
    cases, growths = [], []
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as name:
            paths = make_files(
                Path(name), kind, args.lengths, args.piece, tuple(args.size)
            )
            rows = [
                dict(kind=kind, **measure(path, seconds, reader, args.repeats))
                for seconds, path in paths.items()
            ]
        cases += rows
        growths += [
            dict(
                kind=kind,
                lengths=f'{long["seconds"]}/{short["seconds"]}',
                reading=long['reading'] / short['reading'],
                decoding=long['decoding'] / short['decoding'],
            )
            for short, long in pairwise(rows)
        ]
    width, height = args.size
    print_table(
        f'Seconds for files of {width} x {height} pixels in segments of '
        f'{args.segment:g} s',
        cases,
    )
    if growths:
        print_table('Times of the longer over those of the shorter', growths)
    bench.write(cases=cases, growths=growths)


if __name__ == '__main__':
    main()
