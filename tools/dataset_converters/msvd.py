"""Convert the official files of MSVD, with all captions.

    python tools/dataset_converters/msvd.py --captions raw-captions.pkl \
        --lists FOLDER_OF_LISTS --out data/msvd

Captions may also be JSON, {id: [caption, ...]}, or a table of another
language (CSV) with --mapping youtube_mapping.txt.
"""

from pathlib import Path

from command_line import make_parser, run_converter

from eaglenet_mm.datasets.official import convert_msvd


def main() -> None:
    """Convert."""
    parser = make_parser(__doc__, 'msvd')
    add = parser.add_argument
    add('--captions', type=Path, required=True, help='the file of captions')
    add(
        '--lists',
        type=Path,
        required=True,
        help='folder with train_list.txt, val_list.txt and test_list.txt',
    )
    add('--mapping', type=Path, help='youtube_mapping.txt; a table needs it')
    add('--video-suffix', default='.avi', help='of the video files')
    args = parser.parse_args()
    run_converter(
        args,
        lambda: convert_msvd(
            args.captions, args.lists, args.mapping, args.video_suffix
        ),
    )


if __name__ == '__main__':
    main()
