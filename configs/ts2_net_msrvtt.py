_base_ = [
    'ts2_net/ts2-net_vit-base-p32-res224-clip-pre_8xb16-u12-5e_msrvtt-9k-rgb.py'
]
