"""Convert the official files of MSR-VTT.

    python tools/dataset_converters/msrvtt.py --data MSRVTT_data.json \
        --lists FOLDER_OF_CSV_FILES --out data/msrvtt

Converts every list that the folder holds: MSRVTT_train.9k.csv,
MSRVTT_train.7k.csv, MSRVTT_{train,val,test}.full.csv and the 1k-A test list
MSRVTT_JSFUSION_test.csv.
"""

from pathlib import Path

from command_line import make_parser, run_converter

from eaglenet_mm.datasets.official import convert_msrvtt


def main() -> None:
    """Convert."""
    parser = make_parser(__doc__, 'msrvtt')
    add = parser.add_argument
    add(
        '--data',
        type=Path,
        nargs='+',
        required=True,
        help='MSRVTT_data.json, or train_val_videodatainfo.json and '
        'test_videodatainfo.json',
    )
    add('--lists', type=Path, required=True, help='folder with the CSV files')
    add('--video-suffix', default='.mp4', help='of the video files')
    args = parser.parse_args()
    run_converter(
        args, lambda: convert_msrvtt(args.data, args.lists, args.video_suffix)
    )


if __name__ == '__main__':
    main()
