_base_ = [
    '../_base_/models/videomae-base_clip-text.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

# 16 frames, two a second: a clip of the length that VideoMAE was trained on
num_frames = 16
pipeline = [
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=num_frames, fps=2, mode='release'),
    dict(
        type='DecodeFrames',
        resize=dict(type='ResizeCenterCrop', size=224),
    ),
    dict(type='TokenizeCaptions', max_words={{_base_.max_words}}),
    dict(type='PackRetrievalInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader

model = dict(
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='MeanPoolingHead',
        loss_match=dict(type='InfoNCELoss'),
    ),
)
# the projection is new and learns as fast as the head
optim_wrapper = dict(
    paramwise_cfg=dict(
        rules=[
            dict(
                pattern=r'^(text|video)_encoder\.(?!projection\.)',
                lr_mult=1 / 30,
            ),
            dict(pattern=r'^head\.loss_match\.log_scale$', lr_mult=1 / 30),
        ]
    )
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
