# DiDeMo, paragraph to video: all sentences of a video joined
num_frames = 64
max_words = 64

pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=num_frames, fps=1, mode='release'),
    dict(
        type='DecodeFrames',
        resize=dict(type='ResizeCenterCrop', size=224),
    ),
    dict(type='TokenizeCaptions', max_words=max_words),
    dict(type='PackRetrievalInputs'),
]
data_root = 'data/didemo/'

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ParagraphDataset',
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
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ParagraphDataset',
        dataset=dict(
            type='TextVideoDataset',
            data_root=data_root,
            ann_file='val.json',
            data_prefix=dict(video='videos'),
            pipeline=pipeline,
            test_mode=True,
        ),
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ParagraphDataset',
        dataset=dict(
            type='TextVideoDataset',
            data_root=data_root,
            ann_file='test.json',
            data_prefix=dict(video='videos'),
            pipeline=pipeline,
            test_mode=True,
        ),
    ),
)
val_evaluator = dict(type='RetrievalRankMetric')
test_evaluator = val_evaluator
