_base_ = [
    'backbone_mixes/mean-pooling_siglip2-base_1xb32-u12-5e_msrvtt-9k-rgb.py'
]
