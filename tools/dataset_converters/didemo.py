"""Convert the official files of DiDeMo, paragraph to video.

    python tools/dataset_converters/didemo.py --data FOLDER_OF_JSON_FILES \
        --lists FOLDER_OF_LISTS --out data/didemo

Converts the splits that the folder holds: train_data.json, val_data.json and
test_data.json. Without --lists every video of the JSON is taken, which are
more than the protocol has.
"""

from pathlib import Path

from command_line import make_parser, run_converter

from eaglenet_mm.datasets.official import convert_didemo


def main() -> None:
    """Convert."""
    parser = make_parser(__doc__, 'didemo')
    add = parser.add_argument
    add('--data', type=Path, required=True, help='folder with the JSON files')
    add('--lists', type=Path, help='folder with train_list.txt and so on')
    add(
        '--video-suffix',
        help='of the video files if they were written again, for example '
        '.mp4; default: files are named as officially',
    )
    args = parser.parse_args()
    run_converter(
        args, lambda: convert_didemo(args.data, args.lists, args.video_suffix)
    )


if __name__ == '__main__':
    main()
