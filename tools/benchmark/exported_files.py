"""Time exported files beside the model: CONFIG CHECKPOINT FOLDER.

FOLDER is the --out of tools/export.py with all --parts, for the CPU and
normalised frames. What is compared runs in turn; times are medians.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from harness import interleaved_medians, plain_parser, set_up

from eaglenet_mm.apis import load_retriever
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.export.encoder_programs import text_program, video_program
from eaglenet_mm.export.program import flatten
from eaglenet_mm.export.scoring_programs import scoring_programs
from eaglenet_mm.structures import TextFeatures, VideoFeatures


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = plain_parser(__doc__, threads=1)
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file')
    add('folder', type=Path, help='folder of exported files')
    add('--texts', type=int, default=16)
    add('--videos', type=int, default=4)
    add('--pairs', type=int, default=64, help='a side')
    add('--repeats', type=int, default=9)
    return parser.parse_args()


def onnx_file(path: Path, threads: int) -> Callable[..., list[torch.Tensor]]:
    """Load an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    names = [node.name for node in session.get_inputs()]

    def run(*arguments: Any) -> list[torch.Tensor]:
        arrays = [x.numpy() for x in flatten(arguments)]
        outputs = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(x) for x in outputs]

    return run


def report(
    name: str, arguments: tuple, repeats: int, **runs: Callable
) -> None:
    """Print the times of functions, and how far apart their results are."""
    eager, *others = runs.values()
    wanted = flatten(eager(*arguments))[0]
    for key, run in zip(list(runs)[1:], others, strict=True):
        distance = (flatten(run(*arguments))[0] - wanted).abs().max()
        print(f'{name}: {key} differs by {float(distance):.1e}')
    medians = interleaved_medians(
        {key: partial(run, *arguments) for key, run in runs.items()}, repeats
    )
    found = [f'{k} {1000 * v:.1f} ms' for k, v in medians.items()]
    print(name, *found, sep=' | ')


@torch.no_grad()
def main() -> None:
    """Compare encoders and scoring."""
    args = parse_args()
    set_up(args)
    model = load_retriever(open_config(args.config), args.checkpoint).cpu()
    frames = model.data_preprocessor.num_frames
    text = text_program(model.text_encoder).fix_optional()
    video = video_program(model.video_encoder, frames).fix_optional()
    words = text.sizes['words']
    for program, sizes in (
        (text, dict(texts=args.texts, words=words)),
        (video, dict(videos=args.videos, frames=frames)),
    ):
        path = args.folder / f'{program.name}.onnx'
        report(
            program.name,
            program.draw(**sizes),
            args.repeats,
            eager=program.module,
            onnxruntime=onnx_file(path, args.threads),
        )
    texts = text.run(text.draw(texts=2, words=words))
    videos = video.run(video.draw(videos=2, frames=frames))
    scoring = scoring_programs(
        model.head, TextFeatures(*texts), VideoFeatures(*videos)
    )[2]
    count = args.pairs
    report(
        f'scoring of {count} x {count}',
        scoring.draw(texts=count, videos=count),
        args.repeats,
        eager=scoring.module,
        torch_export=torch.export.load(args.folder / 'scoring.pt2').module(),
        onnxruntime=onnx_file(args.folder / 'scoring.onnx', args.threads),
    )


if __name__ == '__main__':
    main()
