_base_ = [
    'clip4clip/clip4clip-seqlstm_vit-base-p32-res224-clip-pre_4xb32-u12-5e_msrvtt-9k-rgb.py'
]
