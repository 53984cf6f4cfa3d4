# For training from scratch
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PatternOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05
    ),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        rules=[dict(pattern=r'bias|\.ln_|norm\d', decay_mult=0.0)]
    ),
)
param_scheduler = dict(
    type='WarmupCosineLR',
    warmup_ratio=0.1,
    by_epoch=True,
    convert_to_iter_based=True,
)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=3)
val_cfg = dict(type='RetrievalValLoop')
test_cfg = dict(type='RetrievalTestLoop')
