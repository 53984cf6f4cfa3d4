_base_ = ['x_pool/x-pool_vit-tiny-p8-res24_1xb32-u8-12e_story-rgb.py']
