_base_ = [
    '../_base_/models/siglip2_vit-base.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

# tag of open_clip and tokenizer on the Hub, downloaded once, or a file and a
# folder; without training, this is zero-shot SigLIP 2
pretrained = 'webli'
tokenizer = 'hf-hub:timm/ViT-B-16-SigLIP2'

max_words = 64  # SigLIP reads all of its 64 positions
pipeline = [
    dict(type='OpenVideo'),
    dict(
        type='SampleFrames',
        num_frames={{_base_.num_frames}},
        fps=1,
        mode='release',
    ),
    dict(
        type='DecodeFrames',
        resize=dict(type='ResizeCenterCrop', size=224),
    ),
    dict(
        type='TokenizeCaptions',
        tokenizer=dict(
            type='HuggingFaceTokenizer',
            path=tokenizer,
            clean='canonicalize',
        ),
        max_words=max_words,
    ),
    dict(type='PackRetrievalInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(num_frames={{_base_.num_frames}}),
    text_encoder=dict(backbone=dict(pretrained=pretrained)),
    video_encoder=dict(backbone=dict(pretrained=pretrained)),
    head=dict(
        type='MeanPoolingHead',
        loss_match=dict(type='InfoNCELoss'),
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
