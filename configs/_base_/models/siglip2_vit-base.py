# SigLIP 2 ViT-B/16 in the place of SigLIP's. Its tokenizer is another one:
#   dict(type='TokenizeCaptions', max_words=64, tokenizer=dict(
#       type='HuggingFaceTokenizer', path='hf-hub:timm/ViT-B-16-SigLIP2',
#       clean='canonicalize'))
_base_ = './siglip_vit-base.py'

model = dict(
    text_encoder=dict(backbone=dict(type='open_clip.ViT-B-16-SigLIP2')),
    video_encoder=dict(backbone=dict(type='open_clip.ViT-B-16-SigLIP2')),
)
