_base_ = [
    'eaglenet/eaglenet_vit-base-p32-res224-clip-pre_2xb32-u12-5e_msrvtt-9k-rgb.py'
]
