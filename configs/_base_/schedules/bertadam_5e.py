# The recipe of CLIP4Clip and its successors, section 4.1 of the EagleNet paper
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='PatternOptimWrapperConstructor',
    optimizer=dict(
        type='BertAdam',
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.2,
        max_grad_norm=1.0,  # of each parameter, after the global clip below
    ),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        rules=[
            dict(pattern=r'^(text|video)_encoder\.', lr_mult=1e-3),
            dict(pattern='bias', decay_mult=0.0),
        ]
    ),
)
param_scheduler = dict(
    type='WarmupCosineLR',
    warmup_ratio=0.1,
    by_epoch=True,
    convert_to_iter_based=True,
)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5, val_interval=1)
val_cfg = dict(type='RetrievalValLoop')
test_cfg = dict(type='RetrievalTestLoop')
