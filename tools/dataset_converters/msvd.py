"""Convert the official files of MSVD, with all captions.

    python tools/dataset_converters/msvd.py --captions raw-captions.pkl \
        --lists FOLDER_OF_LISTS --out data/msvd

Captions may also be JSON, {id: [caption, ...]}, or a table of another
language (CSV) with --mapping youtube_mapping.txt.
"""

from command_line import run_converter

from eaglenet_mm.datasets.official import convert_msvd

if __name__ == '__main__':
    run_converter(
        __doc__,
        'msvd',
        convert_msvd,
        '.avi',
        captions=dict(help='the file of captions'),
        lists=dict(
            help='folder with train_list.txt, val_list.txt and test_list.txt'
        ),
        mapping=dict(default=None, help='youtube_mapping.txt, for a table'),
    )
