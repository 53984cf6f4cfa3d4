# MSR-VTT with one caption of each training video an epoch, another each time
_base_ = ['./msrvtt_9k.py']

num_frames = 12
max_words = 50

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
train_dataloader = dict(
    dataset=dict(type='RandomCaption', dataset=dict(pipeline=pipeline))
)
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
