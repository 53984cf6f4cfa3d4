# Stories of two and three scenes, made by tools/dataset_converters/story.py
num_frames = 8
max_words = 32
# every word of the captions; the text tower has 4 ids more
# fmt: off
vocabulary = [
    'a', 'an', 'and', 'appears', 'background', 'ball', 'bar', 'beam',
    'becomes', 'bigger', 'blinks', 'blue', 'bottom', 'box', 'bright',
    'brown', 'climbs', 'comes', 'cross', 'cyan', 'disappears', 'disc',
    'does', 'down', 'downwards', 'fades', 'falls', 'first', 'flashes',
    'from', 'front', 'gets', 'goes', 'green', 'grey', 'grows', 'hoop',
    'in', 'is', 'its', 'larger', 'left', 'move', 'moves', 'navy', 'not',
    'of', 'on', 'orange', 'out', 'pink', 'place', 'plus', 'purple', 'red',
    'rests', 'right', 'ring', 'rises', 'shrinks', 'sign', 'sinks',
    'slides', 'smaller', 'square', 'stays', 'still', 'that', 'the', 'then',
    'there', 'to', 'top', 'triangle', 'up', 'upwards', 'vanishes',
    'visible', 'wall', 'wedge', 'white', 'yellow',
]
# fmt: on

pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=num_frames, fps=4, mode='clean'),
    dict(
        type='DecodeFrames',
        resize=dict(type='ResizeCenterCrop', size=24),
    ),
    dict(
        type='TokenizeCaptions',
        tokenizer=dict(type='WordTokenizer', vocabulary=vocabulary),
        max_words=max_words,
    ),
    dict(type='PackRetrievalInputs'),
]
data_root = 'data/story/'

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RandomCaption',
        dataset=dict(
            type='TextVideoDataset',
            data_root=data_root,
            ann_file='train.json',
            data_prefix=dict(video='videos'),
            pipeline=pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TextVideoDataset',
        data_root=data_root,
        ann_file='val.json',
        data_prefix=dict(video='videos'),
        pipeline=pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TextVideoDataset',
        data_root=data_root,
        ann_file='test.json',
        data_prefix=dict(video='videos'),
        pipeline=pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='RetrievalRankMetric')
test_evaluator = val_evaluator
