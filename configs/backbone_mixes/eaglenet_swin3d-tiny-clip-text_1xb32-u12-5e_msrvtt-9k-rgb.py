_base_ = [
    '../_base_/models/swin3d-tiny_clip-text.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='EagleNetHead',
        embed_dim=512,
        num_frames=6,  # temporal steps of the backbone, of 12 frames
        frame_embedding=True,
        use_frame_mask=True,
        loss_match=dict(type='InfoNCELoss'),
        loss_energy=dict(type='EnergyMatchingLoss'),
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
