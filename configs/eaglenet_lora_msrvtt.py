_base_ = [
    'eaglenet/eaglenet-lora_vit-base-p16-res224-clip-pre_2xb32-u12-5e_msrvtt-9k-rgb.py'
]
