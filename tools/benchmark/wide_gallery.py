r"""Rank the captions of the toy test set among many more videos.

    python tools/benchmark/wide_gallery.py work_dirs/toy_comparison/*/seed* \
        --data-root data/toy

Takes run folders of tools/compare.py and tests the checkpoint of each again,
among the videos of the test set and distractors: those of the validation set,
and the first rendering of every combination of the training set. With the
whole toy set these are 120 and 280 videos, so that R@10 by chance is 2.5 %
instead of 8.3 %. Splits share no combination: a test caption still fits one
video only. Distractors of the training set were seen in training, with
captions of their own.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import harness
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from eaglenet_mm.apis.comparison import chosen_checkpoint
from eaglenet_mm.apis.retriever_loading import load_retriever
from eaglenet_mm.apis.tool_process import RunError
from eaglenet_mm.evaluation.functional import (
    RightPairs,
    summarize_ranks,
    text_to_video_ranks,
)
from eaglenet_mm.registry import DATASETS, SCOPE
from eaglenet_mm.structures import TextFeatures, VideoFeatures

METRICS = ('R1', 'R5', 'R10')


def videos_of(config: Config, data_root: str, split: str) -> list[dict]:
    """Read one video of each combination of a split, ready to be batched."""
    options = dict(
        config.test_dataloader.dataset,
        data_root=data_root,
        ann_file=f'{split}.json',
    )
    dataset = DATASETS.build({'_scope_': SCOPE, **options})
    first: dict[str, int] = {}  # ids are COMBINATION-NUMBER
    for index in range(len(dataset)):
        name = dataset.get_data_info(index)['video_id']
        first.setdefault(name.rpartition('-')[0], index)
    return [dataset[index] for index in first.values()]


@torch.no_grad()
def rank(model: Any, test: list[dict], others: list[dict]) -> Tensor:
    """Rank every caption of the test videos among all videos."""
    texts, videos, right = [], [], []
    number = {x['data_samples'].video_id: i for i, x in enumerate(test)}
    for place, item in enumerate([*test, *others]):
        inputs = model.data_preprocessor(pseudo_collate([item]))['inputs']
        videos.append(
            model.encode_video(inputs['pixels'], inputs['frame_mask'])
        )
        sample = item['data_samples']
        if place >= len(test) or not sample.caption_indices:
            continue
        texts.append(model.encode_text(inputs['token_ids']))
        own = [[sample.video_id]] * len(texts[-1])
        right += [
            sorted({number[name] for name in names if name in number})
            for names in sample.get('positives', own)
        ]
    scores = model.head.score_chunked(
        model.head.prepare_text(TextFeatures.cat(texts)),
        model.head.prepare_video(VideoFeatures.cat(videos)),
    )
    pairs = [(text, v) for text, own in enumerate(right) for v in own]
    columns = torch.tensor([own[0] if own else -1 for own in right])
    found = RightPairs(columns, *torch.tensor(pairs).t()).simplify()
    return text_to_video_ranks(scores.cpu(), found).ranks


def measure(run: Path, data_root: str) -> dict[str, Any]:
    """Test one run; give the metrics in percent."""
    config = Config.fromfile(run / 'config.py')
    model = load_retriever(config, str(chosen_checkpoint(run / 'train')))
    test, *others = (
        videos_of(config, data_root, split)
        for split in ('test', 'val', 'train')
    )
    distractors = [video for videos in others for video in videos]
    found = summarize_ranks(rank(model, test, distractors))
    videos = len(test) + len(distractors)
    chance = min(100.0, 100 * 10 / videos)
    return {
        'config': run.parent.name,
        'run': run.name,
        'videos': videos,
        **{key: found[key] for key in METRICS},
        'R10 by chance': chance,
        'times chance': found['R10'] / chance,
    }


def main() -> None:
    """Measure, print and write."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser = harness.make_parser(__doc__, threads=1, device=device)
    parser.add_argument('runs', nargs='+', help='as .../x_pool_toy-*/seed0')
    harness.add_options(parser, data_root=('data/toy', 'of the toy set'))
    args = parser.parse_args()
    for run in args.runs:
        if not (Path(run) / 'config.py').is_file():
            parser.error(
                f'{run} is no folder of a run of tools/compare.py: it has no '
                'config.py. Name the folders seed0, seed1 and so on.'
            )
    bench = harness.Bench(args)
    for run in args.runs:
        try:
            bench.add(measure(Path(run).resolve(), args.data_root))
        except RunError as err:
            raise SystemExit(f'wide_gallery.py: {err}') from err
        print(bench.rows[-1], flush=True)
    by_config: dict[tuple, list[dict]] = {}
    for row in bench.rows:
        by_config.setdefault((row['config'], row['videos']), []).append(row)
    for runs in by_config.values():
        mean = {
            key: statistics.fmean(row[key] for row in runs)
            for key in (*METRICS, 'times chance')
        }
        bench.add({**runs[0], 'run': f'mean of {len(runs)}', **mean})
    bench.print_table('Test captions among all videos, percent')


if __name__ == '__main__':
    main()
