_base_ = [
    '../_base_/models/clip_vit-tiny.py',
    '../_base_/datasets/story.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    # token shift: shift_layers of the base; token selection needs patches
    video_encoder=dict(output_patches=True),
    head=dict(
        type='TS2NetHead',
        embed_dim=96,
        num_frames={{_base_.num_frames}},
        num_patches=9,  # (24 / 8) squared
        num_selected=3,
        num_samples=100,
        num_layers=2,
        num_heads=4,
        loss_match=dict(type='InfoNCELoss'),
    ),
)
# 32 pairs in one loss, encoded at once, without accumulation
auto_scale_lr = dict(enable=False, base_batch_size=32)
