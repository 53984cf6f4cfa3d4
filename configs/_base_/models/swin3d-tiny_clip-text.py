# Video Swin Transformer, tiny, captions by CLIP's text tower. Two frames make
# one temporal step: of 12 frames the head gets num_frames=6.
model = dict(
    type='TextVideoRetriever',
    # mean and std follow from the video encoder: ImageNet's
    data_preprocessor=dict(type='RetrievalDataPreprocessor', num_frames=12),
    text_encoder=dict(
        type='CLIPTextEncoder',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
    ),
    video_encoder=dict(
        type='RegisteredEncoder',
        backbone=dict(
            type='mmaction.SwinTransformer3D',
            arch='tiny',
            # weights of ImageNet, inflated to clips
            pretrained='https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin_tiny_patch4_window7_224.pth',
            pretrained2d=True,
            patch_size=(2, 4, 4),
            window_size=(8, 7, 7),
            drop_path_rate=0.1,
        ),
        layout='clip',
        num_input_frames=12,
        image_size=224,
        embed_dim=512,  # of the text tower; a new linear layer
    ),
)
