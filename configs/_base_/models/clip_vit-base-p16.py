# CLIP ViT-B/16 with patch shift in its last two image blocks
model = dict(
    type='TextVideoRetriever',
    data_preprocessor=dict(type='RetrievalDataPreprocessor'),
    text_encoder=dict(
        type='CLIPTextEncoder',
        arch='ViT-B-16-quickgelu',
        pretrained='openai',
        frozen='release',
    ),
    video_encoder=dict(
        type='CLIPVideoEncoder',
        arch='ViT-B-16-quickgelu',
        pretrained='openai',
        shift_layers=(10, 11),
        frozen='release',
    ),
)
