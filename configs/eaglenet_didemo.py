_base_ = [
    'eaglenet/eaglenet_vit-base-p16-res224-clip-pre_2xb8-u64-5e_didemo-rgb.py'
]
