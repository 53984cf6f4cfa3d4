# The recipe of X-Pool and T-MASS: 3e-5 for the head, 1e-6 for CLIP and its
# scale, every parameter decayed
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PatternOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=3e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.2
    ),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        rules=[
            dict(pattern=r'^(text|video)_encoder\.', lr_mult=1 / 30),
            dict(pattern=r'^head\.loss_match\.log_scale$', lr_mult=1 / 30),
        ]
    ),
)
# from 0 to the peak in the first tenth, then a whole half of a cosine to 0
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6,  # 0 is not possible
        end=0.5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0.5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5, val_interval=1)
val_cfg = dict(type='RetrievalValLoop')
test_cfg = dict(type='RetrievalTestLoop')
