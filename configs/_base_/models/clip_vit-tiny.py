# Towers of one and two layers, trained from scratch on 24 x 24 pixels
model = dict(
    type='TextVideoRetriever',
    # Videos, and texts, a process encodes at once in training; None: all of
    # its batch. A number lets a larger batch compete in one loss on the
    # memory of few, with the same gradient, for one more forward pass.
    encoder_micro_batch=None,
    data_preprocessor=dict(
        type='RetrievalDataPreprocessor',
        # pixels kept small beside the position embeddings: without weights
        # to start from, motion is not learnt otherwise
        mean=(0.45, 0.45, 0.45),
        std=(2.0, 2.0, 2.0),
    ),
    text_encoder=dict(
        type='CLIPTextEncoder',
        pretrained=False,
        arch=dict(
            embed_dim=96,
            quick_gelu=True,
            text_cfg=dict(
                context_length=32,
                vocab_size=86,
                width=96,
                heads=4,
                layers=1,
            ),
        ),
    ),
    video_encoder=dict(
        type='CLIPVideoEncoder',
        pretrained=False,
        arch=dict(
            embed_dim=96,
            quick_gelu=True,
            vision_cfg=dict(
                image_size=24,
                patch_size=8,
                width=96,
                head_width=24,
                layers=2,
            ),
        ),
        shift_layers=(0, 1),
    ),
)
