_base_ = [
    '../_base_/models/eaglenet_clip_vit-base-p16.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/bertadam_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        num_frames={{_base_.num_frames}},
        frame_embedding=True,
        loss_energy=dict(energy=dict(type='BilinearEnergy')),
        energy_support_weight=1.0,
    ),
)
# in-batch negatives: the batch is part of the method. All 64 pairs meet in
# one loss, without accumulation; where memory is short, set
# model.encoder_micro_batch and keep the batch
auto_scale_lr = dict(enable=False, base_batch_size=64)
