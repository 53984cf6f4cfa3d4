_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k_random-caption.py',
    '../_base_/schedules/adamw_120e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='TextProxyHead',
        embed_dim=512,
        num_frames={{_base_.num_frames}},
        # stated before any test; the release reports the best of ten values
        gamma=0.5,
        # one length a pair: exp(theta * mean cosine), theta is learnt
        dash='theta',
        delta=1.0,
        eta=1.0,
        dropout=0.1,
        # 2: the two directions are added, not averaged
        loss_match=dict(type='InfoNCELoss', max_scale=200, loss_weight=2),
        proxy_weight=0.5,
        positive_weight=0.25,
    ),
)
train_dataloader = dict(batch_size=64)
# in-batch negatives: the batch is part of the method. All 128 pairs meet in
# one loss, without accumulation; where memory is short, set
# model.encoder_micro_batch and keep the batch
auto_scale_lr = dict(enable=False, base_batch_size=128)
