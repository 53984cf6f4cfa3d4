# ResNet-50 of ImageNet on every frame, captions by CLIP's text tower
model = dict(
    type='TextVideoRetriever',
    # mean and std follow from the video encoder: ImageNet's
    data_preprocessor=dict(type='RetrievalDataPreprocessor'),
    text_encoder=dict(
        type='CLIPTextEncoder',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
    ),
    video_encoder=dict(
        type='RegisteredEncoder',
        backbone=dict(
            type='mmaction.ResNet',
            depth=50,
            pretrained='https://download.pytorch.org/models/resnet50-11ad3fa6.pth',
            # statistics of ImageNet, not of the few videos of a batch
            norm_eval=True,
        ),
        layout='frames',
        image_size=224,
        embed_dim=512,  # of the text tower; a new linear layer
    ),
)
