_base_ = [
    '../_base_/models/clip_vit-tiny.py',
    '../_base_/datasets/story.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}, output_tokens=True),
    head=dict(
        type='WTIHead',
        embed_dim=96,
        num_frames={{_base_.num_frames}},
        max_words={{_base_.max_words}},
        interaction='wti',
        num_weight_layers=2,
        temporal=dict(
            type='TemporalTransformer', embed_dim=96, num_layers=2, num_heads=4
        ),
        loss_match=dict(type='InfoNCELoss'),
        # not 'weighted' as published: from random weights all frames have the
        # start token as their best word for a while, and the deviation that
        # channels are divided by is 0 then
        loss_decorrelation=dict(
            type='ChannelDecorrelationLoss', pairing='sample'
        ),
    ),
)
# 32 pairs in one loss, encoded at once, without accumulation
auto_scale_lr = dict(enable=False, base_batch_size=32)
