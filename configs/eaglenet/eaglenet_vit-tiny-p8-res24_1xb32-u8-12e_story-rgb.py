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
        type='EagleNetHead',
        embed_dim=96,
        num_frames={{_base_.num_frames}},
        num_candidates=4,
        frame_embedding=True,
        graph=dict(num_layers=2, num_heads=4, dropout=0.0),
        pooling=dict(num_heads=1, dropout=0.0),
        loss_match=dict(type='InfoNCELoss'),
        support_weight=0.8,
        loss_energy=dict(
            type='EnergyMatchingLoss',
            energy=dict(type='MLPEnergy', reduction='mean'),
        ),
        energy_support_weight=1.0,
    ),
)
# 32 pairs in one loss, encoded at once, without accumulation
auto_scale_lr = dict(enable=False, base_batch_size=32)
