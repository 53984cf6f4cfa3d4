_base_ = ['./eaglenet_clip_vit-base-p16.py']

model = dict(
    text_encoder=dict(arch='ViT-B-32-quickgelu'),
    video_encoder=dict(arch='ViT-B-32-quickgelu'),
)
