_base_ = [
    'backbone_mixes/clip4clip-meanp_videomae-base-clip-text_1xb32-u16-5e_msrvtt-9k-rgb.py'
]
