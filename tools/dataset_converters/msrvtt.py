"""Convert the official files of MSR-VTT.

    python tools/dataset_converters/msrvtt.py --data MSRVTT_data.json \
        --lists FOLDER_OF_CSV_FILES --out data/msrvtt

Converts every list that the folder holds: MSRVTT_train.9k.csv,
MSRVTT_train.7k.csv, MSRVTT_{train,val,test}.full.csv and the 1k-A test list
MSRVTT_JSFUSION_test.csv.
"""

from command_line import run_converter

from eaglenet_mm.datasets.official import convert_msrvtt

if __name__ == '__main__':
    run_converter(
        __doc__,
        'msrvtt',
        convert_msrvtt,
        '.mp4',
        data=dict(
            nargs='+',
            help='MSRVTT_data.json, or train_val_videodatainfo.json and '
            'test_videodatainfo.json',
        ),
        lists=dict(help='folder with the CSV files'),
    )
