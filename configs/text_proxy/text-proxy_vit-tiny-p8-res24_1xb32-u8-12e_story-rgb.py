_base_ = [
    '../_base_/models/clip_vit-tiny.py',
    '../_base_/datasets/story.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='TextProxyHead',
        embed_dim=96,
        num_frames={{_base_.num_frames}},
        gamma=0.5,
        dash='theta',
        delta=1.0,
        eta=1.0,
        dropout=0.0,
        # 2: the two directions are added, not averaged
        loss_match=dict(type='InfoNCELoss', max_scale=200, loss_weight=2),
        proxy_weight=0.5,
        positive_weight=0.25,
    ),
)
# 32 pairs in one loss, encoded at once, without accumulation
auto_scale_lr = dict(enable=False, base_batch_size=32)
