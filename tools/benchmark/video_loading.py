"""Frames a second from video files, in four modes.

    python tools/benchmark/video_loading.py ways [--videos FOLDER]
    python tools/benchmark/video_loading.py loader --device cuda
    python tools/benchmark/video_loading.py readers
    python tools/benchmark/video_loading.py segments --lengths 60 120

Files are made, encoded as those of MSR-VTT are (320 x 240, 30 frames a second,
a key frame every 250, 10 to 20 seconds) unless a mode says otherwise. What is
compared runs in turn in one process, which keeps to one core unless --cores
says otherwise: a loader has workers on all of them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import harness
import numpy as np
import torch
from harness import MIB, REPOSITORY
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import Tensor

from eaglenet_mm.config.reading import open_config
from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.datasets.frame_cache import build_frame_cache
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from eaglenet_mm.search.moment_reading import MomentReader
from tools.benchmark.reference.video_loading import (
    ReleaseLoading,
    StockLoading,
)

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
RATE = 25  # frames a second of these
#: Package of each reader.
READERS = {
    'pyav': 'av',
    'torchcodec': 'torchcodec',
    'decord': 'decord',
    'opencv': 'cv2',
}

# Made files -----------------------------------------------------------------


def write_clip(
    path: Path,
    size: tuple[int, int],
    count: int,
    *,
    codec: str = 'libx264',
    rate: int = 30,
    block: int = 8,
    grain: float = 0,
    seed: int = 0,
    options: dict[str, str],
) -> None:
    """Encode ``count`` frames of a moving texture of blocks.

    Grain of some grey levels, as cameras add it, makes it work to decode.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    shape = (2 * height // block, 2 * width // block, 3)
    texture = rng.integers(0, 256, shape, dtype=np.uint8)
    texture = texture.repeat(block, 0).repeat(block, 1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        stream.options = {'g': '250', **options}
        for step in range(count):
            top, left = step // 2 % height, step % width
            image = texture[top : top + height, left : left + width]
            if grain:
                noise = rng.normal(0, grain, (height, width, 1))
                image = np.clip(image + noise, 0, 255)
            image = np.ascontiguousarray(image, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_clips(folder: Path, count: int) -> list[str]:
    """Write clips of 10 to 20 seconds, encoded as a video site does."""
    paths = [folder / f'clip{number}.mp4' for number in range(count)]
    for number, path in enumerate(paths):
        length = 30 * (10 + number * 10 // max(1, count - 1))
        options = {'crf': '23'}
        write_clip(path, (320, 240), length, seed=number, options=options)
    return list(map(str, paths))


def write_kind(
    kind: str, path: Path, length: int, size: tuple[int, int]
) -> None:
    """Encode some seconds of a kind; grain gives a decoder work to do."""
    codec, _, options = KINDS[kind]
    write_clip(
        path, size, RATE * length, codec=codec, rate=RATE, block=16, grain=6,
        options=options,
    )  # fmt: skip


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


# From a file to normalised frames -------------------------------------------


def dataset_options(
    folder: Path, paths: list[str], args: argparse.Namespace, backend: str
) -> dict[str, Any]:
    """Options of the data set of the recipe, whose annotation is written."""
    ann_file = folder / 'all.json'
    write_annotation(
        ann_file,
        dict(dataset='benchmark', split='test', protocol='all'),
        [
            dict(video_id=str(number), video=path, captions=['-'])
            for number, path in enumerate(paths)
        ],
    )
    resize = dict(type='ResizeCenterCrop', size=args.size)
    return dict(
        ann_file=str(ann_file),
        pipeline=[
            dict(type='OpenVideo', backend=backend),
            dict(type='SampleFrames', num_frames=args.frames),
            dict(type='DecodeFrames', resize=resize),
            dict(type='PackRetrievalInputs'),
        ],
    )


def own_loading(
    paths: list[str], options: dict[str, Any], num_frames: int
) -> Callable[[str], Tensor]:
    """Load by this project's data set and preprocessor."""
    dataset = TextVideoDataset(**options)
    preprocessor = RetrievalDataPreprocessor(num_frames=num_frames)

    def load(path: str) -> Tensor:
        item = dataset[paths.index(path)]
        return preprocessor(pseudo_collate([item]))['inputs']['pixels']

    return load


def ways() -> None:
    """From video files to normalised frames, beside two other ways.

    Counts the frames a second that this project delivers, decoding and from
    its frame cache, against the way of the authors' release (OpenCV, a seek
    for each second, Pillow frame by frame, float64 batch) and mmaction2's
    stock pipeline. Pixels are compared with the release's.
    """
    parser = harness.make_parser(ways.__doc__, 'cores', threads=1)
    harness.add_options(
        parser,
        videos=(Path, 'folder; default: clips are made'),
        clips=(8, 'clips to make'),
        frames=(12, 'most frames of a video'),
        size=(224, 'side of a frame in pixels'),
        backend=('auto', 'reader of this project'),
        reads=(0, 'also watch memory over as many reads'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), str(Path(name) / 'cache')
        paths = (
            sorted(str(x) for x in args.videos.iterdir() if x.is_file())
            if args.videos
            else make_clips(folder, args.clips)
        )
        options = dataset_options(folder, paths, args, args.backend)
        begin = time.perf_counter()
        made = build_frame_cache(TextVideoDataset(**options), cache)
        took = time.perf_counter() - begin
        cached = {**options, 'frame_cache': cache}
        loaders: dict[str, Callable[[str], Tensor]] = {
            'release': ReleaseLoading(args.frames, args.size),
            'mmaction2': StockLoading(args.frames, args.size),
            'decoding': own_loading(paths, options, args.frames),
            'cache': own_loading(paths, cached, args.frames),
        }
        difference, num_frames = 0.0, 0
        for path in paths:
            expected = loaders['release'](path)
            num_frames += int(expected.flatten(2).any(-1).sum())
            for way in ('decoding', 'cache'):
                error = (loaders[way](path) - expected).abs().max()
                difference = max(difference, float(error))
        times = harness.interleaved_medians(
            {
                name: lambda load=load: [load(path) for path in paths]
                for name, load in loaders.items()
            },
            args.repeats,
        )
        resident = []
        for number in range(args.reads):
            loaders['decoding'](paths[number % len(paths)])
            if number % max(1, args.reads // 4) == args.reads // 4 - 1:
                resident.append(round(harness.status('VmRSS') / MIB, 1))
    for way, value in times.items():
        row = {
            'way': way,
            's': value,
            'frames/s': num_frames / value,
            'to release': times['release'] / value,
            'to mmaction2': times['mmaction2'] / value,
        }
        bench.add(row)
    size = made.num_bytes
    bench.write(difference=difference, cache_bytes=size, resident=resident)
    bench.print_table(
        f'{len(paths)} videos, {num_frames} frames of {args.size} pixels'
    )
    print(
        f'\nLargest difference of a pixel to the release: {difference:.1e}. '
        f'The cache took {took:.1f} s and {size / 1e6:.0f} MB.'
    )
    if args.reads:
        print(f'Memory over {args.reads} reads: {resident} MiB')


def loader() -> None:
    """From disk to the device, by a loader with all cores.

    Worker processes decode, resize and pack, this process brings batches to
    the device and normalises them there. PyAV comes first, then the frame
    cache, then the other readers that are installed.
    """
    parser = harness.make_parser(loader.__doc__, 'device', repeats=3)
    harness.add_options(
        parser,
        frames=(12, 'most frames of a video'),
        clips=(16, 'clips to make'),
        items=(512, 'videos of a pass'),
        batch=(32, 'videos of a batch'),
        size=(224, 'side of a frame in pixels'),
        workers=(os.cpu_count() or 1, 'processes that read'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), str(Path(name) / 'cache')
        paths = make_clips(folder, args.clips)
        items = [paths[number % len(paths)] for number in range(args.items)]

        def add(way: str, backend: str, **more: Any) -> None:
            options = dataset_options(folder, items, args, backend)
            dataset = TextVideoDataset(**options, **more)
            bench.add(dict(way=way, **measure_loader(args, dataset)))
            if way == 'pyav':
                build_frame_cache(dataset, cache, num_workers=args.workers)

        add('pyav', 'pyav')
        add('frame cache', 'pyav', frame_cache=cache)
        for reader in ('decord', 'torchcodec'):
            if find_spec(READERS[reader]):
                try:
                    add(reader, reader)
                except (ImportError, OSError, RuntimeError) as error:
                    # installed, but not its libraries, for example
                    bench.skipped.append(f'{reader}: {error!s:.300}')
                    bench.write()
    bench.print_table(
        f'{args.items} videos of {args.clips} clips, {args.size} pixels'
    )


def measure_loader(
    args: argparse.Namespace, dataset: TextVideoDataset
) -> dict[str, float]:
    """Time passes over the data; the first one starts the workers."""
    device = torch.device(args.device)
    batches = Runner.build_dataloader(
        dict(
            batch_size=args.batch,
            num_workers=args.workers,
            persistent_workers=True,
            pin_memory=device.type == 'cuda',
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        seed=args.seed,
    )
    preprocessor = RetrievalDataPreprocessor(num_frames=args.frames)
    preprocessor.to(device)
    frames = 0

    def load() -> None:
        nonlocal frames
        frames = 0
        for batch in batches:
            inputs = preprocessor(batch)['inputs']
            # counted where they are used, so that every copy has ended
            frames += int(inputs['frame_mask'].sum())

    load()
    best = min(harness.seconds(load, device) for _ in range(args.repeats))
    return {
        'workers': args.workers,
        'frames': frames,
        'frames/s': frames / best,
        'videos/s': len(dataset) / best,
    }


# Readers --------------------------------------------------------------------


def readers() -> None:
    """Frames a second that each installed backend delivers.

    Makes a clip of each kind and reads it through open_video, opening and
    checks included, as a data set does: frames spread over the clip, and all
    frames in order. A backend that refuses a file, because it may deliver
    wrong frames of it, has no figure.
    """
    parser = harness.make_parser(readers.__doc__, 'cores', threads=1)
    harness.add_options(
        parser,
        kinds=(list(KINDS), 'kinds of files', KINDS),
        length=(20, 'seconds of a clip'),
        size=([320, 240], 'of a picture'),
        frames=(12, 'frames that are spread'),
    )
    args = parser.parse_args()
    bench = harness.Bench(args)
    installed = [x for x, package in READERS.items() if find_spec(package)]

    def spread(path: str, backend: str, count: int = args.frames) -> int:
        with open_video(path, backend=backend) as reader:
            last = reader.num_frames - 1
            indices = np.linspace(0, last, count).round().astype(int).tolist()
            return len(reader.get_batch(indices))

    def in_order(path: str, backend: str) -> int:
        with open_video(path, backend=backend) as reader:
            return sum(1 for _ in reader.stream(range(reader.num_frames)))

    with tempfile.TemporaryDirectory() as name:
        for kind in args.kinds:
            path = str(Path(name) / f'{kind}{KINDS[kind][1]}')
            write_kind(kind, Path(path), args.length, tuple(args.size))
            reads = {'spread': spread, 'in order': in_order}
            count = {way: run(path, 'pyav') for way, run in reads.items()}
            runs: dict[str, Callable] = {}
            for backend in installed:
                try:
                    spread(path, backend, 2)
                except (ImportError, VideoReadError) as err:
                    print(f'{kind}, {backend}: {str(err)[:160]}', flush=True)
                    continue
                for way, run in reads.items():
                    runs[f'{backend} {way}'] = partial(run, path, backend)
            times = harness.interleaved_medians(runs, args.repeats)
            for way, frames in count.items():
                row: dict[str, Any] = dict(kind=kind, way=way)
                for backend in installed:
                    took = times.get(f'{backend} {way}')
                    row[backend] = took and frames / took
                bench.add(row)
    bench.print_table('Frames a second')


def segments() -> None:
    """Time of reading long videos in segments, over their length.

    Reads files of each kind and length as an index of segments does, all
    pipeline steps and thumbnails included, without the model. Beside it, in
    turn, each is decoded once in order with PyAV, without converting a frame.
    Reading is linear if twice the length takes twice the time; what it adds to
    decoding is the ratio of the two. A file repeats one encoded piece, so that
    making it takes seconds.
    """
    parser = harness.make_parser(
        segments.__doc__, 'cores', threads=1, repeats=3
    )
    harness.add_options(
        parser,
        kinds=(list(KINDS), 'kinds of files', KINDS),
        lengths=([60, 240, 480], 'seconds, ascending'),
        piece=(20, 'seconds that are repeated'),
        size=([640, 360], 'of a picture'),
        segment=(10.0, 'seconds of a segment'),
        config=(
            str(REPOSITORY / 'configs/eaglenet_msrvtt.py'),
            'whose test pipeline reads',
        ),
        workers=(0, 'processes that read'),
    )
    args = parser.parse_args()
    wrong = [x for x in args.lengths if x <= 0 or x % args.piece]
    if wrong:
        parser.error(
            f'--lengths must be multiples of --piece {args.piece}, but got '
            f'{wrong}.'
        )
    bench = harness.Bench(args)
    reader = MomentReader(
        open_config(args.config).test_dataloader.dataset.pipeline,
        segment=args.segment,
        num_workers=args.workers,
        time_limit=0,
    )
    for kind in args.kinds:
        earlier: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as name:
            ending = KINDS[kind][1]
            # MP4 keeps the times of decoding; MPEG-TS is cut from it
            piece = Path(name) / f'piece{ending.replace("ts", "mp4")}'
            write_kind(kind, piece, args.piece, tuple(args.size))
            for length in args.lengths:
                path = Path(name) / f'{length}{ending}'
                repeat_piece(piece, path, length // args.piece)
                row = measure_segments(str(path), reader, args.repeats)
                row = dict(kind=kind, length=length, **row)
                for key in ('length', 'reading', 'decoding'):
                    grown = harness.quotient(row[key], earlier.get(key))
                    row[f'{key} grew by'] = grown
                earlier = row
                bench.add(row)
    bench.print_table(f'Seconds for files in segments of {args.segment:g} s')


def measure_segments(
    path: str, reader: MomentReader, repeats: int
) -> dict[str, Any]:
    """Read and decode a file in turn."""

    def decode() -> int:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            return sum(1 for _ in container.decode(stream))

    def read() -> int:
        count = 0
        for _, found, _ in reader.read([path]):
            count += len(found.spans)
            if found.error:
                raise SystemExit(f'{path}: {found.error}')
        return count

    found = dict(frames=decode(), segments=read())
    times = harness.interleaved_medians(
        dict(decoding=decode, reading=read), repeats
    )
    ratio = times['reading'] / times['decoding']
    return {**found, **times, 'to decoding': ratio}


if __name__ == '__main__':
    harness.run_mode(
        {x.__name__: x for x in (ways, loader, readers, segments)}
    )
