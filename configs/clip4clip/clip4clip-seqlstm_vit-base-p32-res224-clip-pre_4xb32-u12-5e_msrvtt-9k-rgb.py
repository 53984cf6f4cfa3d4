_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/bertadam_5e_info-nce.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}, frozen='release'),
    video_encoder=dict(frozen='release'),
    head=dict(
        type='MeanPoolingHead',
        temporal=dict(type='TemporalLSTM', embed_dim=512),
        loss_match=dict(type='InfoNCELoss'),
    ),
)
# in-batch negatives: the batch is part of the method. All 128 pairs meet in
# one loss, without accumulation; where memory is short, set
# model.encoder_micro_batch and keep the batch
auto_scale_lr = dict(enable=False, base_batch_size=128)
