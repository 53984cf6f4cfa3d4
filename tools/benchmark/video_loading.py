"""Frames a second from video files, in four modes.

    python tools/benchmark/video_loading.py ways [--videos FOLDER]
    python tools/benchmark/video_loading.py loader --device cuda
    python tools/benchmark/video_loading.py readers
    python tools/benchmark/video_loading.py segments --lengths 60 120

Makes its files. All modes but the loader, whose workers use all cores, keep to
one core and read in one process, each way in turn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import av
import harness
import numpy as np
from harness import MIB, REPOSITORY
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import Tensor

from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.datasets.frame_cache import build_frame_cache
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from eaglenet_mm.search.moment_reading import MomentReader
from tools.benchmark.reference.video_loading import (
    ReleaseLoading,
    StockLoading,
)


class Kind(NamedTuple):
    """How a file is made: frames a second, side of a block, grey of grain."""

    codec: str
    ending: str
    options: dict[str, str]
    rate: int = 25
    block: int = 16
    grain: float = 6


KINDS = {
    'hevc': Kind(
        'libx265', '.mp4',
        {'preset': 'veryfast', 'x265-params': 'log-level=error'},
    ),
    'h264': Kind('libx264', '.mp4', {'preset': 'veryfast'}),
    'vp9': Kind(
        'libvpx-vp9', '.webm', {'deadline': 'realtime', 'cpu-used': '8'}
    ),
    'av1': Kind('libsvtav1', '.mp4', {'preset': '10', 'crf': '30'}),
    'ts': Kind('libx264', '.ts', {'preset': 'veryfast'}),
}  # fmt: skip
#: As a video site makes them.
CLIP = Kind('libx264', '.mp4', {'crf': '23'}, rate=30, block=8, grain=0)
#: Package of each reader.
READERS = {
    'pyav': 'av',
    'torchcodec': 'torchcodec',
    'decord': 'decord',
    'opencv': 'cv2',
}
FRAME_OPTIONS = dict(
    frames=(12, 'most frames of a video'),
    size=(224, 'side of a frame in pixels'),
)
# Made files -----------------------------------------------------------------


def write_clip(
    kind: Kind, path: Path, seconds: int, size: Sequence[int], seed: int = 0
) -> None:
    """Encode a moving texture of blocks, a key frame every 250 frames.

    Grain, as cameras add it, gives a decoder work to do.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    shape = (2 * height // kind.block, 2 * width // kind.block, 3)
    texture = rng.integers(0, 256, shape, dtype=np.uint8)
    texture = texture.repeat(kind.block, 0).repeat(kind.block, 1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(kind.codec, rate=kind.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.options = {'g': '250', **kind.options}
        for step in range(kind.rate * seconds):
            top, left = step // 2 % height, step % width
            image = texture[top : top + height, left : left + width]
            grain = rng.normal(0, kind.grain, (height, width, 1))
            image = np.clip(image + grain, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


@contextmanager
def made_clips(count: int) -> Iterator[tuple[Path, list[str]]]:
    """Give a temporary folder with clips of 10 to 20 s, as MSR-VTT's are.

    320 x 240 pixels, 30 frames a second, a key frame every 250.
    """
    with tempfile.TemporaryDirectory() as name:
        paths = [f'{name}/clip{number}.mp4' for number in range(count)]
        for number, path in enumerate(paths):
            seconds = 10 + number * 10 // max(1, count - 1)
            write_clip(CLIP, Path(path), seconds, (320, 240), seed=number)
        yield Path(name), paths


def repeat_piece(piece: Path, path: Path, times: int) -> None:
    """Write the packets of a file several times, one after another."""
    parts = piece.with_suffix('.txt')
    parts.write_text(f"file '{piece}'\n" * times)
    with (
        av.open(str(parts), format='concat', options={'safe': '0'}) as old,
        av.open(str(path), 'w') as new,
    ):
        # opaque: a decoder such as dav1d is no encoder
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source, opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)


# Ways and loader ------------------------------------------------------------


def make_dataset(
    folder: Path, paths: list[str], args: argparse.Namespace, backend: str,
    **options: Any,
) -> TextVideoDataset:  # fmt: skip
    """Make a data set of files, with the frames of this project."""
    ann_file = folder / 'annotation.json'
    header = dict(dataset='clips', split='test', protocol='full')
    records = [
        dict(video_id=str(number), video=path, captions=['a clip'])
        for number, path in enumerate(paths)
    ]
    write_annotation(ann_file, header, records)
    resize = dict(type='ResizeCenterCrop', size=args.size)
    return TextVideoDataset(
        str(ann_file),
        pipeline=[
            dict(type='OpenVideo', backend=backend),
            dict(type='SampleFrames', num_frames=args.frames),
            dict(type='DecodeFrames', resize=resize),
            dict(type='PackRetrievalInputs'),
        ],
        **options,
    )


def ways() -> None:
    """From video files to normalised frames, beside two other ways.

    Decoding and the frame cache of this project against the way of the
    authors' release (OpenCV, a seek for each second, Pillow frame by frame,
    float64 batch) and mmaction2's stock pipeline. Pixels are compared with the
    release's.
    """
    bench = harness.start(
        ways.__doc__,
        threads=1,
        videos=(Path, 'folder; default: clips are made'),
        clips=(8, 'clips to make'),
        reads=(0, 'also watch memory over as many reads'),
        **FRAME_OPTIONS,
    )
    args = bench.args
    harness.use_one_core()
    preprocessor = RetrievalDataPreprocessor(num_frames=args.frames)
    with made_clips(0 if args.videos else args.clips) as (folder, paths):
        if args.videos:
            files = [x for x in args.videos.iterdir() if x.is_file()]
            paths = sorted(map(str, files))
        cache = str(folder / 'cache')
        dataset = make_dataset(folder, paths, args, 'auto')
        begin = time.perf_counter()
        made = build_frame_cache(dataset, cache)
        took = time.perf_counter() - begin
        cached = make_dataset(folder, paths, args, 'auto', frame_cache=cache)

        def load(dataset: TextVideoDataset, path: str) -> Tensor:
            batch = pseudo_collate([dataset[paths.index(path)]])
            return preprocessor(batch)['inputs']['pixels']

        loaders: dict[str, Callable[[str], Tensor]] = {
            'release': ReleaseLoading(args.frames, args.size),
            'mmaction2': StockLoading(args.frames, args.size),
            'decoding': partial(load, dataset),
            'cache': partial(load, cached),
        }
        difference, num_frames = 0.0, 0
        for path in paths:
            expected = loaders['release'](path)
            num_frames += int(expected.flatten(2).any(-1).sum())
            for way in ('decoding', 'cache'):
                error = (loaders[way](path) - expected).abs().max()
                difference = max(difference, float(error))
        runs = {
            name: lambda load=load: list(map(load, paths))
            for name, load in loaders.items()
        }
        times = harness.interleaved_medians(runs, args.repeats)
        resident = []
        for number in range(args.reads):
            loaders['decoding'](paths[number % len(paths)])
            if number % max(1, args.reads // 4) == args.reads // 4 - 1:
                resident.append(round(harness.status('VmRSS') / MIB, 1))
    for way, value in times.items():
        row = {'way': way, 's': value, 'frames/s': num_frames / value}
        for other in ('release', 'mmaction2'):
            row[f'to {other}'] = times[other] / value
        bench.add(row)
    size = made.num_bytes
    bench.write(difference=difference, cache_bytes=size, resident=resident)
    sizes = f'{len(paths)} videos, {num_frames} frames of {args.size} pixels'
    bench.print_table(sizes)
    print(
        f'\nLargest difference of a pixel from the release: {difference:.1e}. '
        f'The cache took {took:.1f} s and {size / 1e6:.0f} MB. Resident over '
        f'{args.reads} reads: {resident} MiB.'
    )


def loader() -> None:
    """From disk to the device, by a loader with all cores.

    Worker processes decode, resize and pack, this process brings batches to
    the device and normalises them there. Readers that are installed are
    measured after PyAV and the frame cache.
    """
    bench = harness.start(
        loader.__doc__,
        'device',
        repeats=3,
        clips=(16, 'clips to make'),
        items=(512, 'videos of a pass'),
        batch=(32, 'videos of a batch'),
        workers=(os.cpu_count() or 1, 'processes that read'),
        **FRAME_OPTIONS,
    )
    args = bench.args
    with made_clips(args.clips) as (folder, paths):
        items = [paths[number % len(paths)] for number in range(args.items)]
        cache = str(folder / 'cache')
        dataset = make_dataset(folder, items, args, 'pyav')
        bench.add(dict(way='pyav', **measure_loader(bench, dataset)))
        build_frame_cache(dataset, cache, num_workers=args.workers)
        dataset = make_dataset(folder, items, args, 'pyav', frame_cache=cache)
        bench.add(dict(way='frame cache', **measure_loader(bench, dataset)))
        for reader in filter(find_spec, ('decord', 'torchcodec')):
            try:
                dataset = make_dataset(folder, items, args, reader)
                bench.add(dict(way=reader, **measure_loader(bench, dataset)))
            except (ImportError, OSError, RuntimeError) as error:
                # installed without its libraries, for example
                bench.skipped.append(f'{reader}: {error!s:.300}')
                bench.write()
    sizes = f'{args.items} videos of {args.clips} clips, {args.size} pixels'
    bench.print_table(sizes)


def measure_loader(
    bench: harness.Bench, dataset: TextVideoDataset
) -> dict[str, float]:
    """Time passes over the data; the first one starts the workers."""
    args = bench.args
    batches = Runner.build_dataloader(
        dict(
            batch_size=args.batch,
            num_workers=args.workers,
            persistent_workers=args.workers > 0,
            pin_memory=bench.device.type == 'cuda',
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        seed=args.seed,
    )
    preprocessor = RetrievalDataPreprocessor(num_frames=args.frames)
    preprocessor.to(bench.device)

    def load() -> int:
        inputs = (preprocessor(batch)['inputs'] for batch in batches)
        # counted on the device, so that every copy has ended
        return sum(int(x['frame_mask'].sum()) for x in inputs)

    frames = load()
    device, repeats = bench.device, range(args.repeats)
    best = min(harness.seconds(load, device) for _ in repeats)
    rates = {'frames/s': frames / best, 'videos/s': len(dataset) / best}
    return {'workers': args.workers, 'frames': frames, **rates}


# Readers and segments -------------------------------------------------------


def readers() -> None:
    """Frames a second that each installed backend delivers.

    Reads a clip of each kind through open_video as a data set does, opening
    and checks included: frames spread over the clip, and all in order. A
    backend has no figure for a file that it refuses because it may deliver
    wrong frames of it.
    """
    bench = harness.start(
        readers.__doc__,
        threads=1,
        kinds=(list(KINDS), 'kinds of files', KINDS),
        length=(20, 'seconds of a clip'),
        size=([320, 240], 'of a picture'),
        frames=(12, 'frames that are spread'),
    )
    args = bench.args
    harness.use_one_core()
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
            path = str(Path(name) / f'{kind}{KINDS[kind].ending}')
            write_clip(KINDS[kind], Path(path), args.length, args.size)
            reads = {'spread': spread, 'in order': in_order}
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
            for way, run in reads.items():
                frames = run(path, 'pyav')
                row: dict[str, Any] = dict(kind=kind, way=way)
                for backend in installed:
                    took = times.get(f'{backend} {way}')
                    row[backend] = harness.quotient(frames, took)
                bench.add(row)
    bench.print_table('Frames a second')


def segments() -> None:
    """Time of reading long videos in segments, over their length.

    Reads files of each kind and length as an index of segments does, all
    pipeline steps and thumbnails included, without the model. In turn with it,
    PyAV decodes each file once in order without converting a frame. A file
    repeats one encoded piece, so that making it takes seconds.
    """
    bench = harness.start(
        segments.__doc__,
        threads=1,
        repeats=3,
        kinds=(list(KINDS), 'kinds of files', KINDS),
        lengths=([60, 240, 480], 'seconds, ascending'),
        piece=(20, 'seconds that are repeated'),
        size=([640, 360], 'of a picture'),
        segment=(10.0, 'seconds of a segment'),
    )
    args = bench.args
    wrong = [x for x in args.lengths if x <= 0 or x % args.piece]
    if wrong:
        about = f'multiples of --piece {args.piece}'
        bench.refuse(f'--lengths must be {about}, but got {wrong}.')
    harness.use_one_core()
    config = Config.fromfile(str(REPOSITORY / 'configs/eaglenet_msrvtt.py'))
    pipeline = config.test_dataloader.dataset.pipeline
    options = dict(segment=args.segment, num_workers=0, time_limit=0)
    reader = MomentReader(pipeline, **options)

    def decode(path: str) -> int:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            return sum(1 for _ in container.decode(stream))

    def read(path: str) -> int:
        count = 0
        for _, found, _ in reader.read([path]):
            count += len(found.moments)
            if found.error:
                raise SystemExit(f'{path}: {found.error}')
        return count

    for kind in args.kinds:
        earlier: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as name:
            ending = KINDS[kind].ending
            # MP4 keeps the times of decoding; MPEG-TS is cut from it
            piece = Path(name) / f'piece{ending.replace("ts", "mp4")}'
            write_clip(KINDS[kind], piece, args.piece, args.size)
            for length in args.lengths:
                path = str(Path(name) / f'{length}{ending}')
                repeat_piece(piece, Path(path), length // args.piece)
                about = dict(kind=kind, length=length)
                counts = dict(frames=decode(path), segments=read(path))
                runs = dict(decoding=decode, reading=read)
                runs = {way: partial(run, path) for way, run in runs.items()}
                times = harness.interleaved_medians(runs, args.repeats)
                row: dict[str, Any] = {**about, **counts, **times}
                row['to decoding'] = row['reading'] / row['decoding']
                for key in ('decoding', 'reading'):
                    grown = harness.quotient(row[key], earlier.get(key))
                    row[f'{key} grew by'] = grown
                earlier = row
                bench.add(row)
    bench.print_table(f'Seconds for files in segments of {args.segment:g} s')


if __name__ == '__main__':
    modes = (ways, loader, readers, segments)
    harness.run_mode({mode.__name__: mode for mode in modes})
