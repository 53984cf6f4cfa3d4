_base_ = [
    '../_base_/models/siglip_vit-base.py',
    '../_base_/datasets/msrvtt_9k.py',
    '../_base_/schedules/adamw_5e.py',
    '../_base_/default_runtime.py',
]

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
            path='checkpoints/siglip_tokenizer',
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
    head=dict(
        type='XPoolHead',
        embed_dim=768,
        dropout=0.3,
        loss_match=dict(type='InfoNCELoss'),
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
