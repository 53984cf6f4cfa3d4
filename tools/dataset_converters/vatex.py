"""Convert the official files of VATEX, val and test of 1500 videos each.

    python tools/dataset_converters/vatex.py --lists FOLDER_OF_LISTS \
        --captions vatex_training_v1.0.json vatex_validation_v1.0.json \
        --out data/vatex

Captions may also be ref_captions.json, {id: [caption, ...]}. Converts the
splits that the folder lists: train_list.txt, val_list.txt, test_list.txt.
"""

from pathlib import Path

from command_line import make_parser, run_converter

from eaglenet_mm.datasets.official import convert_vatex


def main() -> None:
    """Convert."""
    parser = make_parser(__doc__, 'vatex')
    add = parser.add_argument
    add(
        '--captions',
        type=Path,
        nargs='+',
        required=True,
        help='the files of captions',
    )
    add('--lists', type=Path, required=True, help='folder with the lists')
    add(
        '--language',
        choices=('en', 'zh'),
        default='en',
        help='of the captions, where a file has both',
    )
    add('--video-suffix', default='.mp4', help='of the video files')
    args = parser.parse_args()
    run_converter(
        args,
        lambda: convert_vatex(
            args.captions, args.lists, args.language, args.video_suffix
        ),
    )


if __name__ == '__main__':
    main()
