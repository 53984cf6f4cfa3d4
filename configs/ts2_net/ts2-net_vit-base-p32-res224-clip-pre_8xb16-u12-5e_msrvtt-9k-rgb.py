_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/bertadam_5e_info-nce.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}, frozen='release'),
    video_encoder=dict(
        shift_layers=(10, 11),  # the token shift of the method
        output_patches=True,  # tokens to select from
        frozen='release',
    ),
    head=dict(
        type='TS2NetHead',
        embed_dim=512,
        num_frames={{_base_.num_frames}},
        num_patches=49,  # (224 / 32) squared
        num_selected=3,
        num_samples=500,
        sigma=0.05,
        num_layers=4,
        loss_match=dict(type='InfoNCELoss'),
    ),
)
train_dataloader = dict(batch_size=16)
# in-batch negatives: the batch is part of the method. All 128 pairs meet in
# one loss, without accumulation; where memory is short, set
# model.encoder_micro_batch and keep the batch
auto_scale_lr = dict(enable=False, base_batch_size=128)
