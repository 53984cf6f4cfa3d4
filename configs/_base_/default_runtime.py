default_scope = 'eaglenet_mm'

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='t2v/R1',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    lost_videos=dict(type='LostVideosHook'),
    contrastive_batch=dict(type='ContrastiveBatchHook'),
    logit_scale=dict(type='LogitScaleClampHook'),
    strict_resume=dict(type='StrictResumeHook', stretch_schedule=False),
    start_weights=dict(type='StartWeightsHook'),
    dataset_epoch=dict(type='DatasetEpochHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_processor = dict(
    type='LogProcessor',
    window_size=50,
    by_epoch=True,
    # what is averaged over the window; of all else the last batch is logged
    mean_pattern=r'.*(loss|time|data_time|grad_norm|same_video_pairs).*',
)
visualizer = dict(
    type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
log_level = 'INFO'
randomness = dict(seed=0)
load_from = None
resume = False
