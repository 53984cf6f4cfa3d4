"""Time exported files beside the model: CONFIG CHECKPOINT FOLDER.

FOLDER is the --out of tools/export.py with all --parts, for the CPU and
normalised frames. Each file and the model run in turn; times are medians.
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

#: Sentences, videos, and texts and videos that are scored.
TEXTS, VIDEOS, PAIRS = 16, 4, 64


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
    args = parser.parse_args()
    bench = harness.Bench(args)
    model = load_retriever(open_config(args.config), args.checkpoint).cpu()
    frames = model.data_preprocessor.num_frames
    text = text_program(model.text_encoder).fix_optional()
    video = video_program(model.video_encoder, frames).fix_optional()
    words = text.sizes['words']
    _, _, scoring = scoring_programs(
        model.head,
        TextFeatures(*text.run(text.draw(texts=2, words=words))),
        VideoFeatures(*video.run(video.draw(videos=2, frames=frames))),
    )
    saved = torch.export.load(args.folder / 'scoring.pt2').module()
    for name, program, sizes in (
        ('text_encoder.onnx', text, dict(texts=TEXTS, words=words)),
        ('video_encoder.onnx', video, dict(videos=VIDEOS, frames=frames)),
        ('scoring.pt2', scoring, dict(texts=PAIRS, videos=PAIRS)),
        ('scoring.onnx', scoring, dict(texts=PAIRS, videos=PAIRS)),
    ):
        inputs = program.draw(**sizes)
        path = args.folder / name
        file = onnx_file(path, args.threads) if 'onnx' in name else saved
        runs = {'model': program.module, 'file': file}
        runs = {key: partial(run, *inputs) for key, run in runs.items()}
        ours, theirs = (flatten(run())[0] for run in runs.values())  # warm-up
        times = harness.interleaved_medians(runs, args.repeats)
        row = {
            'file': name,
            'difference': float((theirs - ours).abs().max()),
            **{f'{key} ms': 1000 * took for key, took in times.items()},
        }
        bench.add(row)
    bench.print_table(
        f'{TEXTS} sentences, {VIDEOS} videos, {PAIRS} x {PAIRS} pairs'
    )


if __name__ == '__main__':
    main()
