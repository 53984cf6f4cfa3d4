_base_ = ['./clip_vit-base-p16.py']

model = dict(
    head=dict(
        type='EagleNetHead',
        embed_dim=512,
        num_candidates=20,
        graph=dict(num_layers=2, num_heads=4, dropout=0.5),
        pooling=dict(num_heads=1, dropout=0.3),
        loss_match=dict(type='PairwiseSigmoidLoss'),
        support_weight=0.8,
        loss_energy=dict(
            type='EnergyMatchingLoss',
            energy=dict(type='MLPEnergy', reduction='mean'),
        ),
        energy_weight=1.0,
    )
)
