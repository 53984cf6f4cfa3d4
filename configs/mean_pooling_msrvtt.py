_base_ = [
    'mean_pooling/mean-pooling_vit-base-p32-res224-clip-pre_1xb32-u12-5e_msrvtt-9k-rgb.py'
]
