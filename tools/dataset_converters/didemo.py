"""Convert the official files of DiDeMo, paragraph to video.

    python tools/dataset_converters/didemo.py --data FOLDER_OF_JSON_FILES \
        --lists FOLDER_OF_LISTS --out data/didemo

Converts the splits that the folder holds: train_data.json, val_data.json and
test_data.json. Without --lists every video of the JSON is taken, which are
more than the protocol has.
"""

from command_line import run_converter

from eaglenet_mm.datasets.official import convert_didemo

if __name__ == '__main__':
    run_converter(
        __doc__,
        'didemo',
        convert_didemo,
        None,
        data=dict(help='folder with the JSON files'),
        lists=dict(default=None, help='folder with train_list.txt and so on'),
    )
