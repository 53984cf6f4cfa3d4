_base_ = [
    'clip4clip/clip4clip-seqtransf_vit-tiny-p8-res32_1xb64-u8-16e_story-rgb.py'
]
