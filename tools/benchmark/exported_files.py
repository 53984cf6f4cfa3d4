"""Time exported files beside the model: CONFIG CHECKPOINT FOLDER.

FOLDER is the --out of tools/export.py with all --parts, for the CPU and
normalised frames. What is compared runs in turn; times are medians.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import onnxruntime
import torch

from eaglenet_mm.apis import load_retriever
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.export.encoders import text_program, video_program
from eaglenet_mm.export.program import flatten
from eaglenet_mm.export.scoring import scoring_programs
from eaglenet_mm.structures import TextFeatures, VideoFeatures


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


@torch.no_grad()
def main() -> None:
    """Compare encoders and scoring."""
    parser = harness.make_parser(__doc__, threads=1, repeats=9)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('folder', type=Path, help='folder of exported files')
    harness.add_options(
        parser, texts=(16, 'texts'), videos=(4, 'videos'), pairs=(64, 'a side')
    )
    args = parser.parse_args()
    bench = harness.Bench(args)

    def compare(name: str, arguments: tuple, **runs: Callable) -> None:
        wanted = flatten(runs['eager'](*arguments))[0]
        times = harness.interleaved_medians(
            {key: partial(run, *arguments) for key, run in runs.items()},
            args.repeats,
        )
        for key, run in runs.items():
            distance = (flatten(run(*arguments))[0] - wanted).abs().max()
            row = {'what': name, 'by': key, 'ms': 1000 * times[key]}
            bench.add({**row, 'difference': float(distance)})

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
        compare(
            program.name,
            program.draw(**sizes),
            eager=program.module,
            onnxruntime=onnx_file(path, args.threads),
        )
    texts = text.run(text.draw(texts=2, words=words))
    videos = video.run(video.draw(videos=2, frames=frames))
    scoring = scoring_programs(
        model.head, TextFeatures(*texts), VideoFeatures(*videos)
    )[2]
    compare(
        f'scoring of {args.pairs} x {args.pairs}',
        scoring.draw(texts=args.pairs, videos=args.pairs),
        eager=scoring.module,
        torch_export=torch.export.load(args.folder / 'scoring.pt2').module(),
        onnxruntime=onnx_file(args.folder / 'scoring.onnx', args.threads),
    )
    bench.print_table('Exported files beside the model')


if __name__ == '__main__':
    main()
