_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='TMASSHead',
        embed_dim=512,
        num_frames={{_base_.num_frames}},
        num_trials=20,
        prior='uniform01',
        num_heads=1,
        dropout=0.3,
        evaluation='pairwise',
        loss_match=dict(type='InfoNCELoss'),
        support_weight=0.8,
    ),
)
# in-batch negatives: the batch is part of the method. All 32 pairs meet in
# one loss, without accumulation; where memory is short, set
# model.encoder_micro_batch and keep the batch
auto_scale_lr = dict(enable=False, base_batch_size=32)
