_base_ = [
    '../_base_/models/clip_vit-base-p32.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

# tag of open_clip, downloaded once, or a file; without training, this is
# zero-shot CLIP
pretrained = 'openai'

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(pretrained=pretrained, max_words={{_base_.max_words}}),
    video_encoder=dict(pretrained=pretrained),
    head=dict(
        type='MeanPoolingHead',
        loss_match=dict(type='InfoNCELoss'),
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
