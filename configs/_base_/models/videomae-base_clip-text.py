# VideoMAE ViT-B/16 fine-tuned on Kinetics-400, captions by CLIP's text tower.
# It sees 16 frames; two make one temporal step: the head gets num_frames=8.
model = dict(
    type='TextVideoRetriever',
    # mean and std follow from the video encoder: ImageNet's
    data_preprocessor=dict(type='RetrievalDataPreprocessor', num_frames=16),
    text_encoder=dict(
        type='CLIPTextEncoder',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
    ),
    video_encoder=dict(
        type='RegisteredEncoder',
        backbone=dict(
            type='mmaction.VisionTransformer',
            img_size=224,
            patch_size=16,
            embed_dims=768,
            depth=12,
            num_heads=12,
            mlp_ratio=4,
            qkv_bias=True,
            num_frames=16,
            norm_cfg=dict(type='LN', eps=1e-6),
            # a map, so that there is more than one vector a video
            return_feat_map=True,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/videomae/vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth',
                prefix='backbone.',
            ),
        ),
        layout='clip',
        image_size=224,
        embed_dim=512,  # of the text tower; a new linear layer
    ),
)
