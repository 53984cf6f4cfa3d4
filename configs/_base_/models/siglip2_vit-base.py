# Both towers of SigLIP 2 ViT-B/16 in their shared space of width 768: without
# embed_dim there is no new layer. Captions need its own tokenizer, and its
# full length:
#   dict(type='TokenizeCaptions', max_words=64, tokenizer=dict(
#       type='HuggingFaceTokenizer', path='hf-hub:timm/ViT-B-16-SigLIP2',
#       clean='canonicalize'))
model = dict(
    type='TextVideoRetriever',
    # mean and std follow from the video encoder: 0.5 each
    data_preprocessor=dict(type='RetrievalDataPreprocessor'),
    text_encoder=dict(
        type='RegisteredTextEncoder',
        backbone=dict(
            type='open_clip.ViT-B-16-SigLIP2',
            pretrained='webli',
        ),
    ),
    video_encoder=dict(
        type='RegisteredEncoder',
        backbone=dict(
            type='open_clip.ViT-B-16-SigLIP2',
            pretrained='webli',
        ),
        layout='frames',
    ),
)
