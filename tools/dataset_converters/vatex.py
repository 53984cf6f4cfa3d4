"""Convert the official files of VATEX, val and test of 1500 videos each.

    python tools/dataset_converters/vatex.py --lists FOLDER_OF_LISTS \
        --captions vatex_training_v1.0.json vatex_validation_v1.0.json \
        --out data/vatex

Captions may also be ref_captions.json, {id: [caption, ...]}. Converts the
splits that the folder lists: train_list.txt, val_list.txt, test_list.txt.
"""

from command_line import run_converter

from eaglenet_mm.datasets.official import convert_vatex

if __name__ == '__main__':
    run_converter(
        __doc__,
        'vatex',
        convert_vatex,
        '.mp4',
        captions=dict(nargs='+', help='the files of captions'),
        lists=dict(help='folder with the lists'),
        language=dict(
            type=str,
            choices=('en', 'zh'),
            default='en',
            help='of the captions, where a file has both; '
            'default: %(default)s',
        ),
    )
