_base_ = [
    'backbone_mixes/eaglenet_resnet50-clip-text_1xb32-u12-5e_msrvtt-9k-rgb.py'
]
