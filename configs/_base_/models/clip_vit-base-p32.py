# CLIP ViT-B/32 as it is: no patch shift, every weight is trained
model = dict(
    type='TextVideoRetriever',
    # Videos, and texts, a process encodes at once in training; None: all of
    # its batch. A number lets a larger batch compete in one loss on the
    # memory of few, with the same gradient, for one more forward pass.
    encoder_micro_batch=None,
    data_preprocessor=dict(type='RetrievalDataPreprocessor'),
    text_encoder=dict(
        type='CLIPTextEncoder',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
    ),
    video_encoder=dict(
        type='CLIPVideoEncoder',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
        shift_layers=(),
    ),
)
