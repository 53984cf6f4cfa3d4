"""Config of the smallest training the tools can start."""

custom_imports = dict(imports=['eaglenet_mm', 'mini_parts'])
default_scope = 'eaglenet_mm'
model = dict(type='MiniModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='MiniDataset'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='MiniDataset'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MiniMetric')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.1))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(
        type='CheckpointHook', save_best='mini/error', rule='less'
    ),
)
randomness = dict(seed=3)
