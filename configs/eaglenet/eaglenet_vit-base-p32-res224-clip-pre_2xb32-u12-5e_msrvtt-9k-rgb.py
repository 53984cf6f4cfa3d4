_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/bertadam_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(max_words={{_base_.max_words}}),
    head=dict(
        type='EagleNetHead',
        embed_dim=512,
        num_frames={{_base_.num_frames}},
        num_candidates=20,
        frame_embedding=False,
        graph=dict(num_layers=2, num_heads=4, dropout=0.5),
        pooling=dict(num_heads=1, dropout=0.3),
        loss_match=dict(type='PairwiseSigmoidLoss'),
        support_weight=0.8,
        loss_energy=dict(
            type='EnergyMatchingLoss',
            energy=dict(type='MLPEnergy', reduction='mean'),
        ),
        energy_support_weight=0.0,
    ),
)
# in-batch negatives: the batch is part of the method
auto_scale_lr = dict(enable=False, base_batch_size=64)
