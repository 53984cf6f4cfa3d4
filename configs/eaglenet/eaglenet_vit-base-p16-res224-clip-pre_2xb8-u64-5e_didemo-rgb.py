_base_ = [
    '../_base_/models/eaglenet_clip_vit-base-p16.py',
    '../_base_/datasets/didemo.py',
    '../_base_/schedules/bertadam_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        num_frames={{_base_.num_frames}},
        frame_embedding=True,
        loss_energy=dict(energy=dict(type='MLPEnergy')),
        energy_support_weight=0.0,
    ),
)
# Plain accumulation as in the release: 4 batches a step, and negatives come
# from the 16 videos of one batch only. For 64 pairs in one loss instead, with
# encoders that hold these 8 a process: accumulative_counts=1,
# base_batch_size=64, train_dataloader.batch_size=32 and
# model.encoder_micro_batch=8
optim_wrapper = dict(accumulative_counts=4)
auto_scale_lr = dict(enable=False, base_batch_size=16)
